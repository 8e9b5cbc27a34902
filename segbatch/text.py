"""Text made safe: secrets are removed from URIs and messages, control characters are escaped."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

HIDDEN = "(hidden)"
BLANK = "is empty or blank; check the variable that it was taken from, or leave it out"
# C0 and C1, which control terminals, marks that reorder text, line separators, lone surrogates.
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_PROTOCOL = r"[A-Za-z][A-Za-z0-9+.-]*"
_LINK = re.compile(rf"({_PROTOCOL})://(.*)", re.DOTALL)
_CHAIN = re.compile(rf"::(?={_PROTOCOL}(?:://|::))")
# A URI without any of these holds no secret: this decides nearly all of them.
_SUSPECT = re.compile(r"[@?#;=%]|eyJ|--/|://[^/]*:")
_LOCAL = {"file", "local"}
_AZURE = {"abfs", "abfss", "wasb", "wasbs", "adl", "az"}
# A name may hold "@" (container@account of Azure, paths in archives): without ":" before it, no secret precedes it.
_NAMES_WITH_AT = {"zip", "tar", "libarchive", "memory", "reference", "dir", *_AZURE}
_WITHOUT_PORT = {"s3", "s3a", "s3n", "gs", "gcs", "oss", "cos", "obs", *_AZURE}
_WEB = {"http", "https", "ftp", "webdav", "davs", "dav"}

# Names of parameters, in lower case without punctuation. These are secret in any text.
_CLEARLY_SECRET = re.compile(
    r"token|secret|signature|passw|passphrase|passcode|pwd|credential|jwt|hmac|bearer|authoriz|sharedaccess"
    r"|(?:api|access|account|shared|private|auth|client)key|accessid|keypairid|jsessionid|phpsessid"
    r"|^(?:xamz|xgoog|xoss|xcos|xobs|xtos|xms|hdnea|hdnts|hdntl)|^(?:sig|gda)$"
)
# These are secret as parameters of a URI, where hiding too much is better. Words that only contain them are not.
_LIKELY_SECRET = re.compile(
    r"sig|key|auth|sess|policy|code|cookie|ticket|nonce|csrf|xsrf|saml|delegation|expir|^q(?:sign|ak|header|url)"
)
_HARMLESS = re.compile(
    r"author(?!i)|(?:de|as|re)sign|signal(?!g)|signage|insight|keyword|keyframe|keypoint|monkey|turkey|hockey|obsess"
    r"|(?:zip|post|postal|country|area|bar|qr|geo|lang|language|colou?r|airport)code|(?:en|de)cod|codec|unicode"
)
_SECRET_WORDS = {
    *("pass", "pw", "psw", "pin", "otp", "sid", "ssid", "tk", "tok", "ak", "cred", "creds", "salt", "mac", "exp"),
    *("verify", "hm", "oh", "private", "cert", "assertion", "invite", "grant", "magic", "login", "wstime", "upn", "vs"),
}  # fmt: skip
# Other parts of a signature: Azure's, beside ``sig``; times, beside any secret; digests that nginx signs with.
_SAS = set("sv se sp sr st spr sip sks skoid sktid ske skt skv ss srt si sdd saoid suoid scid ses sduoid".split())
_TIMES = set(
    "e ex is oe st ts t time timestamp date start end valid validfrom validto validuntil until ttl nbf iat".split()
)
_TIME = re.compile(r"\d{10}(?:\d{3})?|[0-9a-f]{8}|\d{4}-?\d\d-?\d\d[T ]?[\d:]*(?:\.\d+)?Z?", re.IGNORECASE)
_DIGESTS = {"md5", "sha1", "sha256", "hash", "digest", "checksum", "h"}
# Long random values of these names identify an image or its version.
_CONTENT = _DIGESTS | set(
    "v version generation rev revision snapshot uuid guid etag cid image img photo file filename name path object "
    "asset media item page doc document blob".split()
)
_FILE_NAME = re.compile(
    r"[^?&=]*\.(?:jpe?g|png|webp|tiff?|bmp|gif|avif|heic|tar|tgz|gz|zip|parquet|csv|tsv|jsonl)", re.IGNORECASE
)
_SEPARATOR = re.compile("(&|;(?=[^&;=]+=))")
# JSON web tokens, and the prefixes of tokens of GitHub, GitLab, Slack, Hugging Face, OpenAI, Google and AWS.
_TOKEN = re.compile(
    r"\beyJ[\w-]{6,}\.[\w-]{6,}\.?[\w-]*"
    r"|\b(?:gh[pousr]_|github_pat_|glpat-|xox[a-z]-|hf_|sk-|AIza|AKIA|ASIA)[\w-]{12,}"
)

_IN_TEXT = re.compile(rf"(?:{_PROTOCOL}::)*{_PROTOCOL}(?:://|%3A%2F%2F)[^\s\"'<>`]+", re.IGNORECASE)
_AFTER_URI = ".,:;!?)]}"
_ASSIGNED = re.compile(r"""(?P<before>[?&;]|(?<![\w.%-]))(?P<name>[A-Za-z_][\w.%-]*)=(?P<value>[^\s&;,"'<>]+)""")
_QUOTED = re.compile(r"""(?P<before>(?P<name>[A-Za-z_][\w.-]*)["']?\s*[:=]\s*(?P<mark>["']))(?:(?!(?P=mark)).)+""")
_PAIR_AT_HOST = re.compile(r"""(?:(?<=[\s"'(=,])|^)[^\s"'()/:@=,]+:(?!//|\\)[^\s"'@]+@(?=[\w\[])""")
_HEADER = re.compile(r"\b(Basic|Bearer)\s+[A-Za-z0-9+/=._~-]{6,}", re.IGNORECASE)
_TEXT_SUSPECT = re.compile(r"://|%3A%2F%2F|[=@]|[\w-]{16}|basic |bearer |[\"']:? *[\"']", re.IGNORECASE)


def is_blank(value: object) -> bool:
    """Return whether ``value`` is a text without any visible character."""
    return isinstance(value, str) and not value.strip()


def redact(uri: str) -> str:
    """Return ``uri`` without credentials: ``https://host/a.jpg?v=2&sig=…`` becomes ``https://host/a.jpg?v=2``.

    Removed are user and password, parameters that sign or authenticate (also in the fragment, in web paths, in URIs
    within parameters, in each link of a chain ``zip://…::s3://…``), and long random values of unknown names. Parameters
    that identify an object are kept, so that a URI that is signed again gives the same result. Local paths are
    unchanged.
    """
    if not _SUSPECT.search(uri):
        return uri
    return "::".join(map(_redact_link, _CHAIN.split(uri)))


def redact_text(text: str) -> str:
    """Return ``text``, such as that of an exception, with every URI redacted and credentials outside URIs hidden."""
    if not _TEXT_SUSPECT.search(text):
        return text
    text = _IN_TEXT.sub(_redact_match, text)
    text = _ASSIGNED.sub(_hide_value, text)
    text = _QUOTED.sub(_hide_quoted, text)
    text = _PAIR_AT_HOST.sub(f"{HIDDEN}@", text)
    text = _HEADER.sub(rf"\1 {HIDDEN}", text)
    return _TOKEN.sub(HIDDEN, text)


def is_web(uri: str) -> bool:
    """Return whether ``uri`` is the address of one object on a web server."""
    return uri.lower().startswith(("http://", "https://"))


def without_query(uri: str) -> str:
    """Return the URI of an object without query and fragment, which only web addresses have."""
    return re.split("[?#]", uri, maxsplit=1)[0] if is_web(uri) else uri


def _redact_match(match: re.Match[str]) -> str:
    uri = match[0].rstrip(_AFTER_URI)
    after = match[0][len(uri) :]
    if "://" in uri:
        return redact(uri) + after
    decoded = _decoded(uri)
    public = redact(decoded)
    return (uri if public == decoded else quote(public, safe="")) + after


def _hide_value(match: re.Match[str]) -> str:
    name = _decoded(match["name"])
    secret = _CLEARLY_SECRET.search(_compact(name)) or (match["before"] and _is_secret_name(name, match["value"]))
    return f"{match['before']}{match['name']}={HIDDEN}" if secret else match[0]


def _hide_quoted(match: re.Match[str]) -> str:
    return match["before"] + HIDDEN if _CLEARLY_SECRET.search(_compact(match["name"])) else match[0]


def _redact_link(link: str) -> str:
    parts = _LINK.fullmatch(link)
    if parts is None or parts[1].lower() in _LOCAL:
        return re.sub(r"((?:AccountKey|SharedAccess\w+)=)[^;]+", rf"\1{HIDDEN}", link)
    protocol = parts[1].lower()
    rest = parts[2] if protocol == "github" else _without_userinfo(protocol, parts[2])  # org:repo@revision
    path, *others = re.split(r"([?#])", rest)
    pieces = [piece for text in others[1::2] for piece in _SEPARATOR.split(text)[::2]]
    signed = any(_names_secret(piece) or re.fullmatch(r"e=1\d{9}", piece) for piece in pieces)
    sas = any(_compact(_decoded(piece).partition("=")[0]) == "sig" for piece in pieces)
    if protocol in _WEB:
        path = _public_path(path)
    for mark, text in zip(others[::2], others[1::2], strict=True):
        public = _public_parameters(text, signed, sas)
        path += mark + public if public or not text else ""
    return f"{parts[1]}://{path}"


def _without_userinfo(protocol: str, rest: str) -> str:
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    user, at, _ = authority.rpartition("@")
    if at:
        return rest if protocol in _NAMES_WITH_AT and ":" not in user else rest[len(user) + 1 :]
    name, colon, port = authority.rpartition(":")
    is_port = port.isdecimal() and protocol not in _WITHOUT_PORT
    if not colon or authority.startswith("arn:") or is_port or not port or port.endswith("]"):
        return rest
    # Keys of S3 contain "/" and other characters that are not always escaped, so the "@" comes later; or never, where
    # the text was truncated.
    _, at, after = rest.partition("@")
    return _without_userinfo(protocol, after) if at else name


def _public_path(path: str) -> str:
    """Return a web path without tokens of content delivery networks: ``/token=…/a.jpg``, ``/a.jpg;jsessionid=…``."""
    if not re.search("=|%3D|eyJ|--/", path, re.IGNORECASE):
        return path
    segments = []
    for segment in path.split("/"):
        pieces = re.split(r"([;,&?]|%3B|%26|%3F)", segment, flags=re.IGNORECASE)
        if any(map(_is_credential, pieces[::2])):
            names = [piece for piece in pieces[::2] if "=" not in _decoded(piece) and not _is_credential(piece)]
            segments += names[:1]
        else:
            segments.append(segment)
    return "/".join(segments)


def _is_credential(piece: str) -> bool:
    """Whether part of a path is a credential. Folders are named ``key=5`` and ``code=US``: only clear names count."""
    if _TOKEN.search(piece) or re.fullmatch(r"s--[\w-]{8,}--", piece):  # the latter is Cloudinary's
        return True
    return any(_CLEARLY_SECRET.search(_compact(name)) for name in _names(piece))


def _public_parameters(text: str, signed: bool, sas: bool) -> str:
    pieces = _SEPARATOR.split(text)
    kept = [
        (mark, _public_value(piece))
        for mark, piece in zip(["", *pieces[1::2]], pieces[::2], strict=True)
        if not (_names_secret(piece) or _is_part_of_secret(piece, signed, sas))
    ]
    joined = "".join(mark + piece for mark, piece in kept)
    return joined if kept and not kept[0][0] else joined[1:]


def _public_value(piece: str) -> str:
    """Return a parameter; a URI in its value is redacted."""
    name, equals, value = piece.partition("=")
    decoded = _decoded(value)
    public = redact_text(decoded)
    if public == decoded:
        return piece
    return name + equals + (public if decoded == value else quote(public, safe=""))


def _names_secret(piece: str) -> bool:
    return any(_is_secret_name(name, _decoded(piece).partition("=")[2]) for name in _names(piece))


def _names(piece: str) -> list[str]:
    """Return the names in a parameter: the one before ``=``, and those in Akamai's ``exp=…~acl=…~hmac=…``."""
    return re.findall(r"(?:^|~)([^~=]+)=", _decoded(piece))


def _is_secret_name(name: str, value: str = "") -> bool:
    compact = _HARMLESS.sub("", _compact(name))
    if compact.endswith("key") and _FILE_NAME.fullmatch(value):
        return False  # the key of an object
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    words = re.split(r"[^a-z0-9]+", spaced.lower())
    return bool(_CLEARLY_SECRET.search(compact) or _LIKELY_SECRET.search(compact) or _SECRET_WORDS.intersection(words))


def _is_part_of_secret(piece: str, signed: bool, sas: bool) -> bool:
    """Whether a parameter with a harmless or unknown name is part of a signature, or looks like a secret."""
    name, _, value = _decoded(piece).rpartition("=")
    compact = _compact(name)
    if sas and compact in _SAS:
        return True
    if signed and compact in _DIGESTS and len(value) >= 16:
        return True
    if signed and compact in _TIMES and (compact == "st" or _TIME.fullmatch(value)):
        return True
    is_content = compact in _CONTENT or compact.endswith("id")
    return bool(_TOKEN.search(value)) or (not is_content and _is_random(value))


def _is_random(value: str) -> bool:
    """Whether ``value`` looks random: a run of 16 letters and digits whose kind changes at every fourth or more."""
    runs = re.findall(r"[A-Za-z0-9]{16,}", value)
    return any(len(re.findall(r"[a-z]+|[A-Z]+|[0-9]+", run)) - 1 >= len(run) / 4 for run in runs)


def _compact(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _decoded(text: str) -> str:
    """Undo percent-encoding, applied up to three times."""
    for _ in range(3):
        if "%" not in text:
            break
        text = unquote(text, errors="surrogateescape")
    return text


def escape_invalid_utf8(text: str) -> str:
    """Return ``text`` as valid Unicode: undecodable bytes become readable ``\\udcXX`` escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def escape_control_characters(text: str) -> str:
    """Return untrusted text on one line that controls no terminal and no log: ``\\x1b[31m``, ``\\n``."""
    return CONTROL_CHARACTERS.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def escape_lines(text: str) -> str:
    """Escape the control characters of each line of ``text``."""
    return "\n".join(map(escape_control_characters, text.split("\n")))


def duration(seconds: float) -> str:
    """Return a duration as ``100 s``, ``5 min`` or ``2 h 05 min``."""
    whole = int(seconds + 0.5)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 7200 else f"{whole // 3600} h {whole % 3600 // 60:02} min"


def share_text(fraction: float) -> str:
    """Return ``63.1%``; of a share that would be rounded to nothing, ``<0.1%``."""
    return "<0.1%" if 0 < fraction < 0.0005 else f"{fraction:.1%}"


def counted(count: int, noun: str) -> str:
    """Return ``1 image`` or ``1,200 images``."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def byte_size(count: int) -> str:
    """Return a size as ``0.2 kB``, ``1.5 MB`` or ``2.0 GB``."""
    unit, name = next((u, n) for u, n in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if count >= u or n == "kB")
    return f"{count / unit:,.1f} {name}"
