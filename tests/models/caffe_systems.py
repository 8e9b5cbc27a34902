"""The authors' networks in Caffe's layers, with a sixteenth of the channels: (classes, seed) -> ``Net``."""

from __future__ import annotations

from tests.models.caffe_net import Net

WIDTHS = ((4, 2), (8, 2), (16, 3), (32, 3), (32, 3))
HIDDEN = 4096 // 16


def _head(net: Net, bottom: str, hidden: int, classes: int, score: str, **fc6: int) -> str:
    for name, options in (("fc6", fc6), ("fc7", {"kernel": 1})):
        bottom = net.relu(net.conv(bottom, name, hidden, **options))
    return net.conv(bottom, score, classes, 1)


def fcn(classes: int, seed: int, finest: int, at_once: bool = False) -> Net:
    net, x = Net(seed), "data"
    for block, (width, depth) in enumerate(WIDTHS, 1):
        x = net.vgg_block(x, block, width, depth, **({"pad": 100} if block == 1 else {}))
        x = net.pool(x, f"pool{block}", stride=2)
    x = _head(net, x, HIDDEN, classes, "score_fr", kernel=7)
    if finest == 32:
        x = net.deconv(x, "upscore", classes, 64, bias=False, stride=32)
        net.crop(x, "data", "score", 19)
        return net
    x = net.deconv(x, "upscore2", classes, 4, bias=False, stride=2)
    pool4 = net.scale("pool4", "scale_pool4", 0.01) if at_once else "pool4"
    skip = net.crop(net.conv(pool4, "score_pool4", classes, 1), x, "score_pool4c", 5)
    x = net.add([x, skip], "fuse_pool4")
    if finest == 16:
        x = net.deconv(x, "upscore16", classes, 32, bias=False, stride=16)
        net.crop(x, "data", "score", 27)
        return net
    x = net.deconv(x, "upscore_pool4", classes, 4, bias=False, stride=2)
    pool3 = net.scale("pool3", "scale_pool3", 0.0001) if at_once else "pool3"
    skip = net.crop(net.conv(pool3, "score_pool3", classes, 1), x, "score_pool3c", 9)
    x = net.add([x, skip], "fuse_pool3")
    x = net.deconv(x, "upscore8", classes, 16, bias=False, stride=8)
    net.crop(x, "data", "score", 31)
    return net


def older_fcn8s(classes: int, seed: int) -> Net:
    """FCN-8s as CRF-as-RNN has it: layers are called otherwise, and scores are upsampled as was learned."""
    net, x = Net(seed), "data"
    for block, (width, depth) in enumerate(WIDTHS, 1):
        x = net.vgg_block(x, block, width, depth, **({"pad": 100} if block == 1 else {}))
        x = net.pool(x, f"pool{block}", stride=2)
    x = _head(net, x, HIDDEN, classes, "score-fr", kernel=7)
    x = net.deconv(x, "score2", classes, 4, stride=2)
    x = net.add([x, net.crop(net.conv("pool4", "score-pool4", classes, 1), x, "score-pool4c", 5)], "score-fused")
    x = net.deconv(x, "score4", classes, 4, bias=False, stride=2)
    x = net.add([x, net.crop(net.conv("pool3", "score-pool3", classes, 1), x, "score-pool3c", 9)], "score-final")
    x = net.deconv(x, "upsample", classes, 16, bias=False, stride=8)
    net.crop(x, "data", "coarse", 31)
    return net


def _deeplab_trunk(net: Net, pools: list[dict[str, int]]) -> str:
    x = "data"
    for block, ((width, depth), options) in enumerate(zip(WIDTHS, pools, strict=True), 1):
        x = net.vgg_block(x, block, width, depth, **({"dilation": 2, "pad": 2} if block == 5 else {}))
        x = net.pool(x, f"pool{block}", **options)
    return x


def deeplab(classes: int, seed: int) -> Net:
    net = Net(seed)
    down, still = {"kernel": 2, "stride": 2, "pad": 1}, {"kernel": 2, "stride": 1, "pad": 1}
    x = _deeplab_trunk(net, [down, down, down, still, {"kernel": 3, "stride": 1, "pad": 1}])
    x = _head(net, x, HIDDEN, classes, "fc8_voc12", kernel=4, dilation=4, pad=6)
    x = net.interp(x, "fc8_interp", 8)
    net.crop(x, "data", "score", 7)
    return net


def deeplab_largefov(classes: int, seed: int, msc: bool = False) -> Net:
    net = Net(seed)
    x = _deeplab_trunk(net, [{"kernel": 3, "stride": stride, "pad": 1} for stride in (2, 2, 2, 1, 1)])
    x = net.pool(x, "pool5a", 3, how="AVE", pad=1)
    x = _head(net, x, 1024 // 16, classes, "fc8_voc12", kernel=3, dilation=12, pad=12)
    if msc:
        scores = [x]
        for name, stride in (("data", 8), ("pool1", 4), ("pool2", 2), ("pool3", 1), ("pool4", 1)):
            y = net.relu(net.conv(name, f"{name}_conv", 8, stride=stride, pad=1))
            y = net.relu(net.conv(y, f"{name}_fc", 8, 1))
            scores.append(net.conv(y, f"{name}_ms_voc12", classes, 1))
        x = net.add(scores, "fc_fusion")
    x = net.interp(x, "fc8_interp", 8)
    net.crop(x, "data", "score", 0)
    return net


def segnet(classes: int, seed: int) -> Net:
    net, x = Net(seed), "data"
    for block, (width, depth) in enumerate(WIDTHS, 1):
        x = net.vgg_block(x, block, width, depth, bn="conv{}_bn")
        x = net.pool(x, f"pool{block}", stride=2, mask=True)
    decoder = {5: (32, 32, 32), 4: (32, 32, 16), 3: (16, 16, 8), 2: (8, 4), 1: (4,)}
    for block, widths in decoder.items():
        depth = WIDTHS[block - 1][1]
        x = net.unpool(x, f"pool{block}_mask", f"conv{block}_{depth}", f"upsample{block}")
        for i, width in zip(range(depth, 0, -1), widths, strict=False):
            x = net.conv(x, f"conv{block}_{i}_D", width, pad=1)
            net.bn(x, f"conv{block}_{i}_D_bn")
            net.relu(x)
    net.conv(x, "conv1_1_D", classes, pad=1)
    return net


def segnet_basic(classes: int, seed: int) -> Net:
    net = Net(seed)
    x = net.lrn("data", "norm")
    for level in range(1, 5):
        x = net.conv(x, f"conv{level}", 4, 7, pad=3)
        net.relu(net.bn(x, f"conv{level}_bn"))
        x = net.pool(x, f"pool{level}", stride=2, mask=True)
    for level in range(4, 0, -1):
        x = net.unpool(x, f"pool{level}_mask", f"conv{level}", f"upsample{level}")
        x = net.conv(x, f"conv_decode{level}", 4, 7, pad=3)
        net.bn(x, f"conv_decode{level}_bn")
    net.conv(x, "conv_classifier", classes, 1)
    return net


def deconvnet(classes: int, seed: int) -> Net:
    net, x = Net(seed), "data"
    for block, (width, depth) in enumerate(WIDTHS, 1):
        x = net.vgg_block(x, block, width, depth, bn="bn{}")
        x = net.pool(x, f"pool{block}", stride=2, mask=True)
    for name, kernel in (("fc6", 7), ("fc7", 1)):
        x = net.conv(x, name, HIDDEN, kernel)
        net.relu(net.bn(x, f"bn{name}"))
    x = net.deconv(x, "fc6-deconv", 32, 7)
    net.relu(net.bn(x, "fc6-deconv-bn"))
    decoder = {5: (32, 32, 32), 4: (32, 32, 16), 3: (16, 16, 8), 2: (8, 4), 1: (4, 4)}
    for block, widths in decoder.items():
        x = net.unpool(x, f"pool{block}_mask", f"conv{block}_{WIDTHS[block - 1][1]}", f"unpool{block}")
        for i, width in enumerate(widths, 1):
            x = net.deconv(x, f"deconv{block}_{i}", width, 3, pad=1)
            net.relu(net.bn(x, f"debn{block}_{i}"))
    net.conv(x, "seg-score-voc", classes, 1)
    return net
