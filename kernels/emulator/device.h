// CUDA C++ as the kernels see it, for a host compiler: vector types, built-in variables, intrinsics, barriers
// and warp collectives. Whatever concerns other threads is only declared here and done by runtime.cpp. It
// includes little, so that a kernel compiles in a fraction of a second; what a kernel needs and is not here
// is a line to add.
//
// Where this is stricter than a GPU, on purpose: a collective whose mask names a lane that has returned or does
// not exist is an error, and only __syncthreads and __syncwarp order memory within a block, as CUDA's manual has
// it; shuffles and votes do not. Blocks are ordered by nothing but __threadfence, an atomic, and __threadfence.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <utility>

#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __launch_bounds__(...)
#define __global__ __attribute__((visibility("default")))  // compiler.py finds the kernels by this
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(bytes) __attribute__((aligned(bytes)))

#if EMULATOR_CHECK && !defined(EMULATOR_RUNTIME) && !defined(__clang__)
// What clang does by itself: calls of these, also those of the compiler's own making, go to check.cpp.
extern "C" {
void* memcpy(void*, const void*, size_t) noexcept __asm__("__tsan_memcpy");
void* memmove(void*, const void*, size_t) noexcept __asm__("__tsan_memmove");
void* memset(void*, int, size_t) noexcept __asm__("__tsan_memset");
}
#endif

// ------------------------------------------------------------------------------------------- vector types

#define EMULATOR_VECTORS(type, scalar, pair_alignment)                                         \
    struct alignas(pair_alignment) type##2 { scalar x, y; };                                   \
    struct type##3 { scalar x, y, z; };                                                        \
    struct alignas(16) type##4 { scalar x, y, z, w; };                                         \
    __forceinline__ type##2 make_##type##2(scalar x, scalar y) { return {x, y}; }              \
    __forceinline__ type##3 make_##type##3(scalar x, scalar y, scalar z) { return {x, y, z}; } \
    __forceinline__ type##4 make_##type##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }
EMULATOR_VECTORS(int, int, 8)
EMULATOR_VECTORS(uint, unsigned, 8)
EMULATOR_VECTORS(float, float, 8)
EMULATOR_VECTORS(double, double, 16)

// ------------------------------------------------------------------------------------- built-in variables

// A fiber never leaves the host thread that runs its block, so these live in that thread, and the runtime sets
// them whenever it resumes another fiber. To a kernel they are constants, as on a GPU.
#ifdef EMULATOR_RUNTIME
extern __thread uint3 threadIdx, blockIdx, blockDim, gridDim;
#else
extern const __thread uint3 threadIdx, blockIdx, blockDim, gridDim;
#endif
constexpr int warpSize = 32;

// --------------------------------------------------------------------------- what runtime.cpp and ptx.cpp do

namespace emulator {

struct Site {  // where in the source a lane waits
    const char* file;
    int line;
};

// Called by the last lane to arrive, with the operand of each lane in the mask; it may write to all of them.
using Combine = void (*)(void* const* operands, unsigned mask);

void barrier(Site site);
void collective(const char* name, unsigned mask, void* operand, Combine combine, Site site);
uint64_t shuffle(const char* name, unsigned mask, uint64_t value, unsigned source, Site site);
unsigned ballot(const char* name, unsigned mask, bool predicate, Site site);
void sync_warp(unsigned mask, Site site);
void* shared_array(const void* declaration, const char* name, size_t bytes, size_t element_bytes, Site site);
void* dynamic_shared(size_t element_bytes, Site site);

// Asynchronous copies of the running lane. Each belongs to the group that is open when it is issued; its bytes move
// when the lane has waited for that group and not before.
void copy_async(void* to, const void* from, unsigned bytes, unsigned source_bytes, Site site);
void commit_copies();
void wait_for_copies(unsigned groups_left);

// Counters that blocks share, and what makes writes before an atomic seen after it: `check.cpp` has what orders what.
uint32_t atomic_inc(uint32_t* address, uint32_t last, Site site);
void thread_fence();

// One tensor-core product of a warp, sums := sums + A B with A 16 x depth and B depth x 8; fragments as mma.m16n8k* has
// them. Matrix rows: where each of the 32 rows of 16 bytes begins that the lanes bring to ldmatrix, eight to a matrix.
enum class Number { bf16, fp16, tf32 };
struct MatrixRows {
    const char* rows[warpSize];
};
void multiply_add(Number number, int depth, float* sums, const uint32_t* a, const uint32_t* b, Site site);
void exchange_rows(const char* name, const char* row, MatrixRows& all, Site site);

// For the checking build: the copy engine has written here; and what an mbarrier has let through comes after all that
// has happened, which is more than it orders.
void mark_written(const void* to, size_t bytes);
void order_block();

inline unsigned lane() { return ((threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x) % warpSize; }

template <class To, class From>
__forceinline__ To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

template <class T>
__forceinline__ T shuffle_bits(const char* name, unsigned mask, T value, unsigned source, Site site) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves four or eight bytes");
    using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
    return bit_cast<T>(static_cast<Bits>(shuffle(name, mask, bit_cast<Bits>(value), source, site)));
}

// Hides from the compiler how x was computed, so that no multiplication is fused with an addition across it.
__forceinline__ float rounded(float x) {
    asm("" : "+m"(x));
    return x;
}

}  // namespace emulator

#define EMULATOR_SITE emulator::Site site = {__builtin_FILE(), __builtin_LINE()}

// ---------------------------------------------------------------------------------- shared memory, barriers

// The address of `name_declaration` stands for the declaration: one per instance of a template, as on a GPU.
#define SHARED(type, name, dimensions)                                     \
    using name##_type = type dimensions;                                   \
    static char name##_declaration;                                        \
    name##_type& name = *static_cast<name##_type*>(emulator::shared_array( \
        &name##_declaration, "shared array " #name, sizeof(name##_type), sizeof(type), {__FILE__, __LINE__}))
#define DYNAMIC_SHARED(type, name) \
    type* const name = static_cast<type*>(emulator::dynamic_shared(sizeof(type), {__FILE__, __LINE__}))

__forceinline__ void __syncthreads(EMULATOR_SITE) { emulator::barrier(site); }
__forceinline__ void __syncwarp(unsigned mask = ~0u, EMULATOR_SITE) { emulator::sync_warp(mask, site); }

// ------------------------------------------------------------------------------------------- between blocks

__forceinline__ void __threadfence() { emulator::thread_fence(); }
__forceinline__ unsigned atomicInc(unsigned* address, unsigned last, EMULATOR_SITE) {
    return emulator::atomic_inc(address, last, site);
}

// ---------------------------------------------------------------------------------------- warp collectives

__forceinline__ unsigned __ballot_sync(unsigned mask, int predicate, EMULATOR_SITE) {
    return emulator::ballot("__ballot_sync", mask, predicate, site);
}
__forceinline__ int __any_sync(unsigned mask, int predicate, EMULATOR_SITE) {
    return emulator::ballot("__any_sync", mask, predicate, site) != 0;
}
__forceinline__ int __all_sync(unsigned mask, int predicate, EMULATOR_SITE) {
    return emulator::ballot("__all_sync", mask, predicate, site) == mask;
}

// A source beyond its segment of `width` lanes gives the lane its own value back.
template <class T>
__forceinline__ T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMULATOR_SITE) {
    const unsigned segment = emulator::lane() & ~(width - 1u);
    return emulator::shuffle_bits("__shfl_sync", mask, value, segment | (source & (width - 1u)), site);
}
template <class T>
__forceinline__ T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATOR_SITE) {
    const unsigned lane = emulator::lane(), source = delta <= (lane & (width - 1u)) ? lane - delta : lane;
    return emulator::shuffle_bits("__shfl_up_sync", mask, value, source, site);
}
template <class T>
__forceinline__ T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATOR_SITE) {
    const unsigned lane = emulator::lane(), last = lane | (width - 1u);
    return emulator::shuffle_bits("__shfl_down_sync", mask, value, delta <= last - lane ? lane + delta : lane, site);
}
template <class T>
__forceinline__ T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, EMULATOR_SITE) {
    const unsigned lane = emulator::lane(), source = lane ^ bits, last = lane | (width - 1u);
    return emulator::shuffle_bits("__shfl_xor_sync", mask, value, source <= last ? source : lane, site);
}

// ----------------------------------------------------------------------------------------------- arithmetic

template <class T>
__forceinline__ T __ldg(const T* address) {
    return *address;
}
template <class T>  // from L2, which all blocks share
__forceinline__ T __ldcg(const T* address) {
    return *address;
}

__forceinline__ int __float_as_int(float x) { return emulator::bit_cast<int>(x); }
__forceinline__ unsigned __float_as_uint(float x) { return emulator::bit_cast<unsigned>(x); }
__forceinline__ float __int_as_float(int x) { return emulator::bit_cast<float>(x); }
__forceinline__ float __uint_as_float(unsigned x) { return emulator::bit_cast<float>(x); }

// Integers mix as in C; of two floats the one that is a number wins, as with fminf and fmaxf.
template <class A, class B>
constexpr auto min(A a, B b) -> decltype(a + b) {
    return a < b ? a : b;
}
template <class A, class B>
constexpr auto max(A a, B b) -> decltype(a + b) {
    return a < b ? b : a;
}
constexpr float min(float a, float b) { return a < b || b != b ? a : b; }
constexpr float max(float a, float b) { return a > b || b != b ? a : b; }

__forceinline__ int __popc(unsigned x) { return __builtin_popcount(x); }
__forceinline__ int __clz(int x) { return x ? __builtin_clz(x) : 32; }
__forceinline__ int __ffs(int x) { return __builtin_ffs(x); }

// a * b + c may be fused, here as on a GPU; these are not, there or here.
__forceinline__ float __fmul_rn(float a, float b) { return emulator::rounded(a * b); }
__forceinline__ float __fadd_rn(float a, float b) { return emulator::rounded(a) + emulator::rounded(b); }
__forceinline__ float __fsub_rn(float a, float b) { return emulator::rounded(a) - emulator::rounded(b); }
__forceinline__ float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
__forceinline__ float __fdiv_rn(float a, float b) { return a / b; }
__forceinline__ float __fsqrt_rn(float x) { return sqrtf(x); }
__forceinline__ float rsqrtf(float x) { return 1.0f / sqrtf(x); }
__forceinline__ float sinpif(float x) { return static_cast<float>(sin(3.14159265358979323846 * x)); }

// ----------------------------------------------------------------------------------------- calling a kernel

namespace emulator {

// What Python checks an argument against: kind 'p' pointer, 'f' floating point, 'i' integer, 's' anything else.
struct Parameter {
    char kind;
    unsigned bytes;
    char pointee_kind;  // 0: not a pointer
    unsigned pointee_bytes;
};

template <class T>
constexpr char kind_of = std::is_pointer_v<T>          ? 'p'
                         : std::is_floating_point_v<T> ? 'f'
                         : std::is_integral_v<T>       ? 'i'
                                                       : 's';

template <class T>
constexpr Parameter describe() {
    using Pointee = std::remove_cv_t<std::remove_pointer_t<T>>;
    if constexpr (!std::is_pointer_v<T>)
        return {kind_of<T>, sizeof(T), 0, 0};
    else if constexpr (std::is_void_v<Pointee>)
        return {'p', sizeof(T), 's', 1};
    else
        return {'p', sizeof(T), kind_of<Pointee>, sizeof(Pointee)};
}

template <auto function>
struct Entry;
template <class... Types, void (*function)(Types...)>
struct Entry<function> {
    static constexpr Parameter parameters[] = {describe<Types>()..., Parameter{}};

    static void invoke(void* const* arguments) { call(arguments, std::index_sequence_for<Types...>{}); }

    template <size_t... indices>  // not instrumented: the arguments lie outside every buffer
    __attribute__((no_sanitize("thread"))) static void call(void* const* arguments, std::index_sequence<indices...>) {
        function(*static_cast<Types*>(arguments[indices])...);
    }
};

// The kernels of a library are a list that its sources' static initialisers build.
struct Kernel {
    const char* name;
    const Parameter* parameters;  // up to one of no kind
    void (*invoke)(void* const* arguments);
    const Kernel* next;

    static const Kernel* first;

    template <auto function>
    Kernel(const char* name, Entry<function>)
        : name(name), parameters(Entry<function>::parameters), invoke(Entry<function>::invoke), next(first) {
        first = this;
    }
};

}  // namespace emulator

#define EMULATOR_REGISTER(kernel) static const emulator::Kernel kernel##_entry(#kernel, emulator::Entry<kernel>{});
