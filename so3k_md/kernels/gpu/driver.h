/* so3k-md: the CUDA driver and compiler, found when they are first needed. MIT.
 *
 * No CUDA header or library is needed to build or to link: the C interfaces below are stable, the
 * driver comes with the card, and NVRTC with torch. */

#ifndef SO3K_GPU_DRIVER_H
#define SO3K_GPU_DRIVER_H

#include <c10/core/Device.h>

#include <cstddef>
#include <string>

namespace So3k {

/// Functions of libcuda.so.1; each returns 0 or an error number.
struct Driver {
  int (*cuInit)(unsigned flags);
  int (*cuDeviceGet)(int *device, int ordinal);
  int (*cuDeviceGetAttribute)(int *value, int attribute, int device);
  int (*cuDevicePrimaryCtxRetain)(void **context, int device);
  int (*cuCtxPushCurrent_v2)(void *context);
  int (*cuCtxPopCurrent_v2)(void **context);
  int (*cuModuleLoadData)(void **module, const void *code);
  int (*cuModuleGetFunction)(void **function, void *module, const char *name);
  int (*cuLaunchKernel)(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                        unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                        void *stream, void **arguments, void **extra);
  int (*cuGetErrorName)(int error, const char **name);
};

/// Functions of NVRTC; each returns 0 or an error number.
struct Nvrtc {
  int (*nvrtcVersion)(int *major, int *minor);
  int (*nvrtcCreateProgram)(void **program, const char *source, const char *name, int n_headers,
                            const char *const *headers, const char *const *header_names);
  int (*nvrtcCompileProgram)(void *program, int n_options, const char *const *options);
  int (*nvrtcGetProgramLogSize)(void *program, std::size_t *size);
  int (*nvrtcGetProgramLog)(void *program, char *log);
  int (*nvrtcGetCUBINSize)(void *program, std::size_t *size);
  int (*nvrtcGetCUBIN)(void *program, char *code);
  int (*nvrtcDestroyProgram)(void **program);
};

/// Both libraries. Throws where one is missing; the message has its name and the remedy.
const Driver &driver();
const Nvrtc &nvrtc();

/// What `driver` or `nvrtc` throws; empty where kernels can be compiled and run.
std::string gpu_fault();

/// Throws with the name of a driver error.
void require(int error, const char *call);

/// The compute capability of a device, such as 90.
int capability(c10::DeviceIndex device);

/// The stream on which torch runs the operators of this thread.
void *current_stream(c10::Device device);

}    // namespace So3k

#endif
