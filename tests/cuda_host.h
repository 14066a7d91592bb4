// Run CUDA kernels on a CPU, one thread after the other, to test their arithmetic and their use of barriers.
//
// Every thread of a block is a fiber on its own stack. It runs until it reaches a barrier or an exchange between lanes,
// and continues when all threads concerned have reached the same one; a thread that returns early, or reaches another
// one, is an error instead of a hang. Threads, warps and blocks run first to last, or last to first: a kernel that
// depends on an order which a GPU does not guarantee returns two results. Shared memory starts as NaN.
// This does not test speed, registers, caches, and races between two warps that both orders hide.
#pragma once

#include <csetjmp>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

#include <ucontext.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define DYNAMIC_SHARED(name) unsigned char* name = host::dynamic_shared.data()

struct dim3 {
    unsigned x, y, z;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace host {

enum class State { ready, lanes, block, done };

struct alignas(16) Bytes {
    unsigned char v[8];
};

struct Thread {
    ucontext_t start;
    jmp_buf resume;
    std::vector<unsigned char> stack;
    State state;
    bool started;
    int kind;        // kind of the exchange in which it waits
    unsigned turn;   // exchanges so far: two slots alternate, so that no thread overwrites a value before it is read
    Bytes slot[2];
};

static std::vector<Thread> threads;
static std::vector<unsigned char> dynamic_shared;
static jmp_buf scheduler;
static std::function<void()> body;
static unsigned current;
static const char* problem;

static void enter() {
    body();
    threads[current].state = State::done;
    _longjmp(scheduler, 1);
}

static void resume(unsigned i) {
    current = i;
    threadIdx = {i, 0, 0};
    if (_setjmp(scheduler) != 0) return;
    Thread& thread = threads[i];
    if (thread.started) _longjmp(thread.resume, 1);
    thread.started = true;
    setcontext(&thread.start);
}

static void wait(State state, int kind) {
    Thread& thread = threads[current];
    thread.state = state;
    thread.kind = kind;
    if (_setjmp(thread.resume) == 0) _longjmp(scheduler, 1);
}

template <class T>
T exchange(int kind, unsigned mask, T value, unsigned from) {
    static_assert(sizeof(T) <= sizeof(Bytes), "too large for a slot");
    if (mask != 0xffffffffu) problem = "an exchange of some lanes only";
    const unsigned me = current;
    const unsigned turn = threads[me].turn++ % 2;
    std::memcpy(threads[me].slot[turn].v, &value, sizeof(T));
    wait(State::lanes, kind);
    T found;
    std::memcpy(&found, threads[me / 32 * 32 + from % 32].slot[turn].v, sizeof(T));
    return found;
}

// Run the lanes of a warp until all have returned or wait for the block.
static bool run_warp(unsigned warp, bool backwards) {
    for (;;) {
        unsigned waiting = 0, left = 0;
        int kind = -1;
        for (unsigned i = 0; i < 32; ++i) {
            const unsigned lane = warp * 32 + (backwards ? 31 - i : i);
            if (threads[lane].state == State::ready) resume(lane);
            const Thread& thread = threads[lane];
            if (thread.state == State::lanes) {
                if (kind >= 0 && kind != thread.kind) problem = "lanes of a warp met different exchanges";
                kind = thread.kind;
                ++waiting;
            } else {
                ++left;
            }
        }
        if (waiting == 0) return true;
        if (left != 0) problem = "lanes of a warp wait for others that have left or wait for the block";
        if (problem != nullptr) return false;
        for (unsigned i = 0; i < 32; ++i) threads[warp * 32 + i].state = State::ready;
    }
}

static void run_block(unsigned size, bool backwards) {
    for (unsigned i = 0; i < size; ++i) {
        Thread& thread = threads[i];
        thread.state = State::ready;
        thread.started = false;
        thread.turn = 0;
        getcontext(&thread.start);
        thread.start.uc_stack.ss_sp = thread.stack.data();
        thread.start.uc_stack.ss_size = thread.stack.size();
        thread.start.uc_link = nullptr;
        makecontext(&thread.start, enter, 0);
    }
    std::fill(dynamic_shared.begin(), dynamic_shared.end(), 0xff);
    for (;;) {
        unsigned waiting = 0;
        for (unsigned w = 0; w < size / 32; ++w)
            if (!run_warp(backwards ? size / 32 - 1 - w : w, backwards)) return;
        for (unsigned i = 0; i < size; ++i) waiting += threads[i].state == State::block;
        if (waiting == 0) return;
        if (waiting != size) {
            problem = "some threads of a block wait for others that have left";
            return;
        }
        for (unsigned i = 0; i < size; ++i) threads[i].state = State::ready;
    }
}

template <class... A, std::size_t... I>
void call(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_const_t<A>*>(args[I])...);
}

template <class... A>
const char* launch(void (*kernel)(A...), unsigned columns, unsigned rows, unsigned size, std::size_t shared,
                   int backwards, void** args) {
    problem = size % 32 != 0 ? "a block that is no whole number of warps" : nullptr;
    body = [=] { call(kernel, args, std::index_sequence_for<A...>{}); };
    while (threads.size() < size) {
        threads.emplace_back();
        threads.back().stack.resize(96 * 1024);
    }
    dynamic_shared.assign(shared + 16, 0);
    blockDim = {size, 1, 1};
    gridDim = {columns, rows, 1};
    for (unsigned i = 0; i < columns * rows && problem == nullptr; ++i) {
        const unsigned block = backwards != 0 ? columns * rows - 1 - i : i;
        blockIdx = {block % columns, block / columns, 0};
        run_block(size, backwards != 0);
    }
    return problem;
}

}  // namespace host

// Define a function that ctypes can call for a kernel with any arguments; it returns an error message or null.
#define HOST_KERNEL(name)                                                                            \
    extern "C" HOST_VISIBLE const char* host_##name(unsigned columns, unsigned rows, unsigned size,  \
                                                    std::size_t shared, int backwards, void** args) { \
        return host::launch(name, columns, rows, size, shared, backwards, args);                     \
    }

inline void __syncthreads() { host::wait(host::State::block, 0); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { host::exchange<int>(1, mask, 0, 0); }

template <class T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
    const unsigned me = host::current % 32;
    return host::exchange(2, mask, value, me / width * width + from % width);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int = 32) {
    return host::exchange(3, mask, value, (host::current % 32) ^ bits);
}

inline unsigned __ballot_sync(unsigned mask, bool value) {
    // All slots are read at once; reading one lane after the other would take 32 exchanges.
    const unsigned me = host::current;
    const unsigned turn = host::threads[me].turn % 2;
    host::exchange<int>(4, mask, value ? 1 : 0, 0);
    unsigned all = 0;
    for (unsigned lane = 0; lane < 32; ++lane) {
        int found;
        std::memcpy(&found, host::threads[me / 32 * 32 + lane].slot[turn].v, sizeof(int));
        all |= (found != 0 ? 1u : 0u) << lane;
    }
    return all;
}

inline int __any_sync(unsigned mask, bool value) { return __ballot_sync(mask, value) != 0 ? 1 : 0; }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
