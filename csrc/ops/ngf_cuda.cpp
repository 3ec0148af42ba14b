// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The ops on CUDA. Compiled where the kernels are, also beside a torch without CUDA.

#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/headeronly/util/Exception.h>

#include "../cuda/launch.h"
#include "ngf.h"

namespace nec {
namespace {

// libtorch_cuda has it. A library that is linked with that would not load under a torch without
// CUDA, and a weak symbol is found only if the linker happens to keep the right dependencies.
cuda::Stream current_stream(int32_t device_index) {
  using Function = AOTITorchError (*)(int32_t, void**);
  static const auto function = reinterpret_cast<Function>(dlsym(
      dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD), "aoti_torch_get_current_cuda_stream"));
  STD_TORCH_CHECK(function, "nec_ext: this torch has no CUDA");
  cuda::Stream stream = nullptr;
  STD_TORCH_CHECK(function(device_index, &stream) == 0, "nec_ext: no stream of this device");
  return stream;
}

// While it lives, the device of a tensor is the current one.
class Cuda {
 public:
  // Its kernels read whole strips of a row.
  static constexpr int kRowAxes = 1;

  explicit Cuda(const Tensor& tensor)
      : device_(tensor.device()),
        guard_(device_.index()),
        stream_(current_stream(device_.index())) {}

  void maps(const Problem& p) { cuda::launch_maps(p, stream_); }

  void reduce(const Problem& p, const Reduced& r) {
    cuda::Total total;
    total.weight = p.weight;
    total.mean = r.mean;
    total.voxels = voxel_count(p);
    // The sum of a mask is in device memory, and nothing waits for it.
    total.count = r.count.value_or(total.voxels);
    total.count_mask = p.mask && !r.count;
    total.normalize = r.normalize;
    total.wide_scalars = r.loss.element_size() == sizeof(double);
    total.loss = r.loss.mutable_data_ptr();
    total.factor = r.factor.mutable_data_ptr();
    const Tensor workspace = new_workspace(p);
    cuda::launch_loss(p, total, doubles(workspace), stream_);
  }

  void sums(Problem& p, bool of_mask, double* out, int64_t count) {
    // How blocks share a window depends on its size: to sum a plane the same way wherever the
    // window begins, it has to be one of its own.
    const int64_t first = p.window.lo[0], step = (p.window.hi[0] - first) / count;
    p.window.hi[0] = first + step;
    const Tensor workspace = new_workspace(p);
    for (int64_t k = 0; k < count; ++k) {
      p.window.lo[0] = first + k * step;
      p.window.hi[0] = p.window.lo[0] + step;
      cuda::launch_sum(p, of_mask, doubles(workspace), out + k, stream_);
    }
  }

  void scale(const Tensor& gradient, const Tensor& upstream, const std::optional<Tensor>& factor) {
    const Layout layout(gradient, kRowAxes);
    const View views[] = {layout.view(gradient), layout.view(upstream),
                          factor ? layout.view(*factor) : View{}};
    cuda::launch_scale(views[0], layout.size, views[1], views[2], stream_);
  }

 private:
  // Once the tensor is gone, torch's allocator gives its memory to later work of the same stream.
  Tensor new_workspace(const Problem& p) const {
    const int64_t size = cuda::workspace_size(p);
    return torch::stable::empty({&size, 1}, torch::headeronly::ScalarType::Double, std::nullopt,
                                device_);
  }
  static double* doubles(const Tensor& tensor) {
    return static_cast<double*>(tensor.mutable_data_ptr());
  }

  torch::stable::Device device_;
  torch::stable::accelerator::DeviceGuard guard_;
  cuda::Stream stream_;
};

void ngf_scale_(Tensor gradient, Tensor upstream, std::optional<Tensor> factor) {
  const auto is_scalar = [](const Tensor& t) {
    const auto dtype = t.scalar_type();
    using torch::headeronly::ScalarType;
    return t.numel() == 1 && (dtype == ScalarType::Float || dtype == ScalarType::Double);
  };
  STD_TORCH_CHECK(is_scalar(upstream) && (!factor || is_scalar(*factor)),
                  "nec_ext: upstream and factor must be scalars of float32 or float64");
  Cuda(gradient).scale(gradient, upstream, factor);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(nec_ext, CUDA, m) {
  m.impl("ngf_forward", TORCH_BOX(&ngf_forward<Cuda>));
  m.impl("ngf_backward", TORCH_BOX(&ngf_backward<Cuda>));
  m.impl("ngf_sums_", TORCH_BOX(&ngf_sums_<Cuda>));
  m.impl("ngf_scale_", TORCH_BOX(&ngf_scale_));
}

}  // namespace nec
