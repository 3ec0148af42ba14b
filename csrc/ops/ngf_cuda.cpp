// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The ops on CUDA. Compiled where the kernels are, also beside a torch without CUDA.

#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/headeronly/util/Exception.h>

#include "../cuda/sweep.h"
#include "ops.h"

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

  void maps(const Problem& p) { cuda::launch_maps(p, cuda::make_plan(p), stream_); }

  void reduce(const Problem& p, const Reduced& r) {
    cuda::Total total;
    total.weight = p.weight;
    total.mean = r.mean;
    total.voxels = voxel_count(p);
    total.normalize = r.normalize;
    total.wide_scalars = r.loss.element_size() == sizeof(double);
    total.loss = r.loss.mutable_data_ptr();
    total.factor = r.factor.mutable_data_ptr();
    const cuda::Plan plan = cuda::make_plan(p);
    const Tensor workspace = new_workspace(plan);
    cuda::launch_loss(p, plan, total, doubles(workspace), stream_);
  }

  void sums(Problem& p, bool of_mask, double* out, int64_t count) {
    for (const View& gradient : p.gradient)
      STD_TORCH_CHECK(p.wide || !gradient || gradient.dtype != DType::float64,
                      "nec_ext: on a GPU a gradient is float64 only beside an image that is");
    // How blocks share a window depends on its size: to sum a plane the same way wherever the
    // window begins, it has to be one of its own.
    const int64_t first = p.window.lo[0], planes = (p.window.hi[0] - first) / count;
    p.window.hi[0] = first + planes;
    const cuda::Plan plan = cuda::make_plan(p);
    const Tensor workspace = new_workspace(plan);
    for (int64_t k = 0; k < count; ++k) {
      p.window.lo[0] = first + k * planes;
      p.window.hi[0] = p.window.lo[0] + planes;
      cuda::launch_sum(p, plan, of_mask, doubles(workspace), out + k, stream_);
    }
  }

  void scale(const View& gradient, const int64_t (&size)[kAxes], const View& upstream,
             const View& factor) {
    cuda::launch_scale(gradient, size, upstream, factor, stream_);
  }

 private:
  // Once the tensor is gone, torch's allocator gives its memory to later work of the same stream.
  Tensor new_workspace(const cuda::Plan& plan) const {
    return torch::stable::empty({&plan.workspace_size, 1}, torch::headeronly::ScalarType::Double,
                                std::nullopt, device_);
  }
  static double* doubles(const Tensor& tensor) {
    return static_cast<double*>(tensor.mutable_data_ptr());
  }

  torch::stable::Device device_;
  torch::stable::accelerator::DeviceGuard guard_;
  cuda::Stream stream_;
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(nec_ext, CUDA, m) {
  m.impl("ngf_forward", &ngf_forward<Cuda>);
  m.impl("ngf_backward", &ngf_backward<Cuda>);
  m.impl("ngf_eps_backward", &ngf_eps_backward<Cuda>);
  m.impl("ngf_sums_", &ngf_sums_<Cuda>);
  m.impl("ngf_scale_", TORCH_BOX(&ngf_scale_<Cuda>));
}

}  // namespace nec
