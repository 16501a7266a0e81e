// A second stack to run on, and the step from one stack to another: a few instructions on x86-64 and aarch64,
// ucontext elsewhere (or with EMULATOR_UCONTEXT). What runs on the stacks, and when, is runtime.cpp's business.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if !defined(EMULATOR_UCONTEXT) && !defined(__x86_64__) && !defined(__aarch64__)
#define EMULATOR_UCONTEXT
#endif

#ifdef EMULATOR_UCONTEXT
#ifdef __APPLE__
#define _XOPEN_SOURCE 700
#endif
#include <ucontext.h>
#endif

namespace emulator {

#ifdef EMULATOR_UCONTEXT

struct Context {
    ucontext_t state;
};

inline void prepare(Context& context, char* stack, size_t bytes, void (*entry)()) {
    getcontext(&context.state);
    context.state.uc_stack.ss_sp = stack;
    context.state.uc_stack.ss_size = bytes;
    context.state.uc_link = nullptr;
    makecontext(&context.state, entry, 0);
}

inline void switch_context(Context& from, Context& to) { swapcontext(&from.state, &to.state); }

#else

// What a function call must preserve lies on the suspended stack itself.
struct Context {
    void* stack_pointer;
};

extern "C" __attribute__((visibility("hidden"))) void emulator_switch(Context* from, Context* to);

// Not .globl: a source that includes this has its own.
#ifdef __APPLE__
#define EMULATOR_SWITCH ".text\n.p2align 4\n_emulator_switch:\n"
#else
#define EMULATOR_SWITCH ".text\n.p2align 4\n.type emulator_switch, %function\nemulator_switch:\n"
#endif

#ifdef __x86_64__

constexpr int saved_words = 8;  // r15 r14 r13 r12 rbx rbp, the return address, and a zero that ends a backtrace
constexpr int entry_word = 6;

asm(EMULATOR_SWITCH R"(
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq (%rsi), %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

#else

constexpr int saved_words = 20;  // x19 .. x28, x29 (frame), x30 (return address), d8 .. d15
constexpr int entry_word = 11;

asm(EMULATOR_SWITCH R"(
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    ldr x9, [x1]
    mov sp, x9
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
)");

#endif

// Makes the stack look as if entry had been about to run when it was suspended.
inline void prepare(Context& context, char* stack, size_t bytes, void (*entry)()) {
    void** frame = reinterpret_cast<void**>(stack + bytes) - saved_words;
    memset(frame, 0, saved_words * sizeof(void*));
    frame[entry_word] = reinterpret_cast<void*>(entry);
    context.stack_pointer = frame;
}

inline void switch_context(Context& from, Context& to) { emulator_switch(&from, &to); }

#endif

}  // namespace emulator
