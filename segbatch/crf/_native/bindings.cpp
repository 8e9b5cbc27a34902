// The Python face of the engine: arrays in, arrays out, the GIL released while it works. Arguments have been checked
// by the Python front; what is checked here again is what memory safety rests on.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>
#include <vector>

#include "crf.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace segbatch;

namespace {

using Planes = nb::ndarray<const float, nb::numpy, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<float, nb::numpy, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Rgb = nb::ndarray<const std::uint8_t, nb::numpy, nb::shape<-1, -1, 3>, nb::c_contig, nb::device::cpu>;
using Mask = nb::ndarray<const bool, nb::numpy, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Vectors = nb::ndarray<const float, nb::numpy, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Labels = nb::ndarray<const std::int32_t, nb::numpy, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Integers = nb::ndarray<const std::int32_t, nb::numpy, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void require(bool condition, const char* message) {
    if (!condition) throw nb::value_error(message);
}

// A new array that NumPy owns.
template <class T>
nb::ndarray<T, nb::numpy> empty(std::vector<std::size_t> shape) {
    std::size_t count = 1;
    for (std::size_t s : shape) count *= s;
    T* values = new T[count];
    nb::capsule owner(values, [](void* p) noexcept { delete[] static_cast<T*>(p); });
    return nb::ndarray<T, nb::numpy>(values, shape.size(), shape.data(), owner);
}

// Memory is accounted for in Python, which the workers of a job share.
std::uint64_t free_memory(std::uint64_t needed) {
    nb::gil_scoped_acquire acquire;
    return nb::cast<std::uint64_t>(nb::module_::import_("segbatch.crf.memory").attr("free_memory")(needed));
}

// A kernel, and the vectors it borrows.
struct Kernel {
    KernelSpec spec;
    std::optional<Vectors> vectors;
};

Kernel make_kernel(std::vector<float> thetas, int normalization, float potts, std::optional<Floats> energies,
                   bool matrix, std::optional<Vectors> vectors) {
    Kernel kernel;
    KernelSpec& spec = kernel.spec;
    require(normalization >= 0 && normalization <= 3, "normalization must be 0 to 3");
    spec.normalization = static_cast<Normalization>(normalization);
    spec.potts = potts;
    if (energies) {
        spec.compat = matrix ? Compat::kMatrix : Compat::kDiagonal;
        spec.energies.assign(energies->data(), energies->data() + energies->size());
    }
    if (vectors) {
        require(vectors->shape(0) >= 1 && vectors->shape(0) <= kMaxDimensions,
                "features have no dimension or more than 32; give 1 to 32");
        spec.kind = Points::Kind::kVectors;
        spec.dimensions = static_cast<int>(vectors->shape(0));
        spec.vectors = vectors->data();
        kernel.vectors = std::move(vectors);
    } else {
        require(thetas.size() == 2 || thetas.size() == 5, "thetas must be (x, y) or (x, y, r, g, b)");
        spec.kind = thetas.size() == 2 ? Points::Kind::kPositions : Points::Kind::kBilateral;
        spec.dimensions = static_cast<int>(thetas.size());
        for (std::size_t i = 0; i < thetas.size(); ++i) {
            require(thetas[i] > 0.0f, "theta is 0 as a 32-bit number; raise it");
            spec.theta[i] = thetas[i];
        }
    }
    return kernel;
}

std::vector<KernelSpec> specs_of(const std::vector<const Kernel*>& kernels, std::size_t labels, std::size_t points,
                                 bool has_image) {
    std::vector<KernelSpec> specs;
    for (const Kernel* k : kernels) {
        const KernelSpec& s = k->spec;
        const std::size_t wanted = s.compat == Compat::kPotts ? 0 : s.compat == Compat::kMatrix ? labels * labels : labels;
        require(s.energies.size() == wanted, "compat does not fit the number of labels");
        require(s.kind != Points::Kind::kBilateral || has_image, "a bilateral kernel needs an image");
        require(s.kind != Points::Kind::kVectors || k->vectors->shape(1) == points, "features do not fit the image");
        specs.push_back(s);
    }
    return specs;
}

Image image_of(const std::optional<Rgb>& rgb, const Planes& unary) {
    Image image;
    image.labels = static_cast<int>(unary.shape(0));
    image.height = static_cast<std::int64_t>(unary.shape(1));
    image.width = static_cast<std::int64_t>(unary.shape(2));
    image.unary = unary.data();
    require(unary.size() > 0, "unary is empty");
    require(image.points() < (std::int64_t{1} << 31), "image has 2^31 pixels or more; cut it into tiles");
    if (rgb) {
        require(rgb->shape(0) == unary.shape(1) && rgb->shape(1) == unary.shape(2), "image and unary differ in size");
        image.rgb = rgb->data();
    }
    return image;
}

void infer_batch(std::vector<std::optional<Rgb>> images, std::vector<Planes> unaries,
                 std::vector<const Kernel*> kernels, int iterations, int threads, std::vector<Out> outs,
                 const std::string& isa) {
    require(images.size() == unaries.size() && outs.size() == unaries.size(), "images, unaries and outs differ in number");
    require(iterations >= 0 && threads >= 1, "iterations must be 0 or more, threads 1 or more");
    std::vector<std::vector<KernelSpec>> specs(unaries.size());
    std::vector<Task> tasks(unaries.size());
    for (std::size_t i = 0; i < unaries.size(); ++i) {
        Task& task = tasks[i];
        task.image = image_of(images[i], unaries[i]);
        specs[i] = specs_of(kernels, unaries[i].shape(0), unaries[i].shape(1) * unaries[i].shape(2), images[i].has_value());
        for (std::size_t d = 0; d < 3; ++d) require(outs[i].shape(d) == unaries[i].shape(d), "out and unary differ in shape");
        task.kernels = &specs[i];
        task.iterations = iterations;
        task.result.planes = outs[i].data();
    }
    const Kernels& functions = kernels_for(isa.c_str());
    nb::gil_scoped_release release;
    run_tasks(tasks, threads, functions);
}

nb::tuple infer_coarse(std::optional<Rgb> rgb, Planes coarse, std::int64_t height, std::int64_t width, int stride,
                       std::vector<const Kernel*> kernels, int iterations, const std::string& isa) {
    require(coarse.size() > 0 && height > 0 && width > 0 && stride > 0, "scores, height, width and stride must be positive");
    require(height < (std::int64_t{1} << 31) / width, "image has 2^31 pixels or more; cut it into tiles");
    Task task;
    task.image.labels = static_cast<int>(coarse.shape(0));
    task.image.height = height;
    task.image.width = width;
    task.image.coarse = coarse.data();
    task.image.coarse_height = static_cast<std::int64_t>(coarse.shape(1));
    task.image.coarse_width = static_cast<std::int64_t>(coarse.shape(2));
    task.image.stride = stride;
    if (rgb) {
        require(static_cast<std::int64_t>(rgb->shape(0)) == height && static_cast<std::int64_t>(rgb->shape(1)) == width,
                "image and size differ");
        task.image.rgb = rgb->data();
    }
    const std::size_t h = static_cast<std::size_t>(height), w = static_cast<std::size_t>(width);
    const std::vector<KernelSpec> specs = specs_of(kernels, coarse.shape(0), h * w, rgb.has_value());
    auto winner = empty<std::int32_t>({h, w});
    auto highest = empty<float>({h, w});
    task.kernels = &specs;
    task.iterations = iterations;
    task.result.winner = winner.data();
    task.result.highest = highest.data();
    const Kernels& functions = kernels_for(isa.c_str());
    {
        nb::gil_scoped_release release;
        run_tasks({task}, 1, functions);
    }
    return nb::make_tuple(winner, highest);
}

// Inference step by step. Holds what it borrows from Python for as long as it lives.
class Stepper {
public:
    Stepper(std::optional<Rgb> rgb, Planes unary, std::vector<nb::object> kernels, const std::string& isa)
        : rgb_(std::move(rgb)), unary_(std::move(unary)), kernels_(std::move(kernels)) {
        std::vector<const Kernel*> borrowed;
        for (const nb::object& k : kernels_) borrowed.push_back(nb::cast<const Kernel*>(k));
        const Image image = image_of(rgb_, unary_);
        height_ = image.height;
        width_ = image.width;
        points_ = image.points();
        labels_ = image.labels;
        const auto specs = specs_of(borrowed, unary_.shape(0), static_cast<std::size_t>(points_), rgb_.has_value());
        const Kernels& functions = kernels_for(isa.c_str());
        nb::gil_scoped_release release;
        inference_ = std::make_unique<Inference>(image, specs, functions, workspace_);
    }

    nb::ndarray<float, nb::numpy> start() {
        std::vector<float> rows(row_count());
        {
            nb::gil_scoped_release release;
            inference_->start(rows.data());
        }
        return to_planes(rows);
    }

    nb::tuple step(Planes marginals, bool wants_divergence) {
        require(marginals.shape(0) == unary_.shape(0) && marginals.shape(1) == unary_.shape(1) &&
                    marginals.shape(2) == unary_.shape(2),
                "marginals and unary differ in shape");
        std::vector<float> rows(row_count(), 0.0f);
        const float* planes = marginals.data();
        double divergence = 0.0;
        {
            nb::gil_scoped_release release;
            const std::int64_t padded = inference_->padded();
            Walk walk(height_, width_);
            for (std::int64_t i = 0; i < points_; ++i, walk.next()) {
                for (std::int64_t l = 0; l < labels_; ++l) rows[i * padded + l] = planes[l * points_ + walk.pixel()];
            }
            divergence = inference_->step(rows.data(), wants_divergence);
        }
        return nb::make_tuple(to_planes(rows), divergence);
    }

private:
    std::size_t row_count() const { return static_cast<std::size_t>(points_) * inference_->padded(); }

    nb::ndarray<float, nb::numpy> to_planes(const std::vector<float>& rows) {
        auto planes = empty<float>({unary_.shape(0), unary_.shape(1), unary_.shape(2)});
        inference_->to_planes(rows.data(), planes.data());
        return planes;
    }

    std::optional<Rgb> rgb_;
    Planes unary_;
    std::vector<nb::object> kernels_;
    Workspace workspace_;
    std::unique_ptr<Inference> inference_;
    std::int64_t height_ = 0, width_ = 0, points_ = 0, labels_ = 0;
};

nb::ndarray<float, nb::numpy> peaks(Planes values, int kind, std::optional<Mask> ignore) {
    require(kind >= 0 && kind <= 2 && values.size() > 0, "kind must be 0 to 2 and values not empty");
    require(!ignore || ignore->size() == values.shape(1) * values.shape(2), "ignore and values differ in size");
    auto out = empty<float>({values.shape(0)});
    const auto* mask = ignore ? reinterpret_cast<const std::uint8_t*>(ignore->data()) : nullptr;
    const Kernels& functions = kernels_for("");
    nb::gil_scoped_release release;
    functions.peaks(values.data(), static_cast<Evidence>(kind), mask,
                    static_cast<std::int64_t>(values.shape(1) * values.shape(2)), static_cast<int>(values.shape(0)),
                    out.data());
    return out;
}

nb::ndarray<float, nb::numpy> energies(Planes values, int kind, std::optional<Mask> ignore, Integers keep) {
    require(kind >= 0 && kind <= 2 && values.size() > 0, "kind must be 0 to 2 and values not empty");
    require(!ignore || ignore->size() == values.shape(1) * values.shape(2), "ignore and values differ in size");
    for (std::size_t i = 0; i < keep.size(); ++i) {
        require(keep.data()[i] >= 0 && static_cast<std::size_t>(keep.data()[i]) < values.shape(0), "keep is out of range");
    }
    auto out = empty<float>({keep.size(), values.shape(1), values.shape(2)});
    const auto* mask = ignore ? reinterpret_cast<const std::uint8_t*>(ignore->data()) : nullptr;
    const Kernels& functions = kernels_for("");
    nb::gil_scoped_release release;
    functions.energies(values.data(), static_cast<Evidence>(kind), mask,
                       static_cast<std::int64_t>(values.shape(1) * values.shape(2)), keep.data(),
                       static_cast<int>(keep.size()), out.data());
    return out;
}

nb::ndarray<float, nb::numpy> upsample(Planes coarse, std::int64_t height, std::int64_t width, int stride) {
    require(coarse.size() > 0 && height > 0 && width > 0 && stride > 0, "scores, height, width and stride must be positive");
    auto out = empty<float>({coarse.shape(0), static_cast<std::size_t>(height), static_cast<std::size_t>(width)});
    const Kernels& functions = kernels_for("");
    nb::gil_scoped_release release;
    functions.upsample(coarse.data(), static_cast<std::int64_t>(coarse.shape(1)),
                       static_cast<std::int64_t>(coarse.shape(2)), stride, height, width,
                       static_cast<int>(coarse.shape(0)), out.data());
    return out;
}

nb::ndarray<float, nb::numpy> label_probability(Planes coarse, Labels chosen, int stride, const std::string& isa) {
    require(coarse.size() > 0 && chosen.size() > 0 && stride > 0, "scores, labels and stride must be positive");
    auto out = empty<float>({chosen.shape(0), chosen.shape(1)});
    const int labels = static_cast<int>(coarse.shape(0));
    const Kernels& functions = kernels_for(isa.c_str());
    bool known = true;
    {
        nb::gil_scoped_release release;
        for (std::size_t i = 0; i < chosen.size(); ++i) known &= chosen.data()[i] >= 0 && chosen.data()[i] < labels;
        if (known) {
            functions.label_probability(coarse.data(), static_cast<std::int64_t>(coarse.shape(1)),
                                        static_cast<std::int64_t>(coarse.shape(2)), stride, chosen.data(),
                                        static_cast<std::int64_t>(chosen.shape(0)),
                                        static_cast<std::int64_t>(chosen.shape(1)), labels, out.data());
        }
    }
    require(known, "labels holds one that has no scores");
    return out;
}

}  // namespace

NB_MODULE(_core, m) {
    m.doc() = "The native engine of segbatch.crf.";
    set_memory_probe(&free_memory);
    nb::register_exception_translator(
        [](const std::exception_ptr& p, void*) {
            try {
                std::rethrow_exception(p);
            } catch (const MemoryError& e) {
                PyErr_SetString(PyExc_MemoryError, e.what());
            }
        });
    nb::class_<Kernel>(m, "Kernel").def(
        "__init__",
        [](Kernel* self, std::vector<float> thetas, int normalization, float potts, std::optional<Floats> energies,
           bool matrix, std::optional<Vectors> vectors) {
            new (self) Kernel(make_kernel(std::move(thetas), normalization, potts, energies, matrix, vectors));
        },
        "thetas"_a, "normalization"_a, "potts"_a, "energies"_a.none() = nb::none(), "matrix"_a = false,
        "vectors"_a.noconvert().none() = nb::none());
    nb::class_<Stepper>(m, "Stepper")
        .def(nb::init<std::optional<Rgb>, Planes, std::vector<nb::object>, const std::string&>(), "image"_a.none(),
             "unary"_a.noconvert(), "kernels"_a, "isa"_a = "")
        .def("start", &Stepper::start)
        .def("step", &Stepper::step, "marginals"_a.noconvert(), "divergence"_a = true);
    m.def("infer_batch", &infer_batch, "images"_a, "unaries"_a, "kernels"_a, "iterations"_a, "threads"_a, "outs"_a,
          "isa"_a = "");
    m.def("infer_coarse", &infer_coarse, "image"_a.none(), "scores"_a.noconvert(), "height"_a, "width"_a, "stride"_a,
          "kernels"_a, "iterations"_a, "isa"_a = "");
    m.def("peaks", &peaks, "values"_a.noconvert(), "kind"_a, "ignore"_a.noconvert().none());
    m.def("energies", &energies, "values"_a.noconvert(), "kind"_a, "ignore"_a.noconvert().none(), "keep"_a);
    m.def("upsample", &upsample, "scores"_a.noconvert(), "height"_a, "width"_a, "stride"_a);
    m.def("label_probability", &label_probability, "scores"_a.noconvert(), "labels"_a.noconvert(), "stride"_a,
          "isa"_a = "");
    m.def(
        "build_lattice",
        [](std::optional<Rgb> rgb, std::int64_t height, std::int64_t width, const Kernel& kernel,
           const std::string& isa) {
            require(height > 0 && width > 0, "height and width must be positive");
            const std::size_t points = static_cast<std::size_t>(height * width);
            require(kernel.spec.kind != Points::Kind::kVectors || kernel.vectors->shape(1) == points,
                    "features do not fit the image");
            require(kernel.spec.kind != Points::Kind::kBilateral || (rgb && rgb->size() == 3 * points),
                    "a bilateral kernel needs an image of that size");
            Image image;
            image.height = height;
            image.width = width;
            image.rgb = rgb ? rgb->data() : nullptr;
            const Kernels& functions = kernels_for(isa.c_str());
            nb::gil_scoped_release release;
            return build_only(image, kernel.spec, functions);
        },
        "image"_a.none(), "height"_a, "width"_a, "kernel"_a, "isa"_a = "");
    m.def("isa_names", [] {
        std::vector<std::string> names;
        int count = 0;
        const Kernels* const* all = all_kernels(&count);
        for (int i = 0; i < count; ++i) {
            if (all[i]->supported()) names.emplace_back(all[i]->name);
        }
        return names;
    });
    m.def("cache_info", [] {
        const CacheInfo info = cache_info();
        nb::dict d;
        d["lattices"] = info.lattices;
        d["lattice_bytes"] = info.lattice_bytes;
        d["hits"] = info.hits;
        d["misses"] = info.misses;
        d["workspaces"] = info.workspaces;
        d["workspace_bytes"] = info.workspace_bytes;
        return d;
    });
    m.def("clear_cache", &clear_cache);
}
