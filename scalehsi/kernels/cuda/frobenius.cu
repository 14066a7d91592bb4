// Least-squares passes over a block of pixels: the twin of scalehsi/kernels/least_squares/passes.py.
//
// A thread block copies a tile of pixels to shared memory, without conversion, and uses it for both products and the
// solver: b = x s', exact non-negative c, then N += v c'x and M += v c'c. If N of a thread block fits into registers,
// the data are read once (`fused_pass`); otherwise c is stored, and the second product reads the data again
// (`solve_pass`, `outer_pass`). Sums are float32 over at most 64 pixels, then float64. Every number has one writer, so
// results do not depend on the order of the thread blocks.
//
// Set at compile time: DATA, the type of x; COMPONENTS, K padded to 4, 8, 16 or 32; TILE_PIXELS, pixels per warp in the
// product b = x s'; PACKS, groups of channels per thread in the second product; SIMPLEX, where abundances sum to one, the
// number of components without padding.
#include "tiles.cu"

// The small sums in registers: the elements of M that belong to a thread, and sum v c of its component.
struct SmallSums {
    double pairs[PAIRS];
    double used;
};

__device__ void add_small(const Problem& problem, const SharedTile& tile, SmallSums& small) {
#pragma unroll
    for (int i = 0; i < PAIRS; ++i) {
        const int pair = threadIdx.x + i * THREADS;
        if (pair < K * K)
            for (int p = 0; p < problem.rows; ++p)
                small.pairs[i] += static_cast<double>(tile.weighted[p * K + pair / K]) * tile.c[p * K + pair % K];
    }
    if (threadIdx.x < K)
        for (int p = 0; p < problem.rows; ++p) small.used += tile.weighted[p * K + threadIdx.x];
}

// Write the small sums of a thread block as one row of `out`: M (K, K), then sum v c (K,).
__device__ void write_small(const SmallSums& small, double* out) {
    double* to = out + static_cast<long long>(blockIdx.x) * (K * K + K);
#pragma unroll
    for (int i = 0; i < PAIRS; ++i) {
        const int pair = threadIdx.x + i * THREADS;
        if (pair < K * K) to[pair] = small.pairs[i];
    }
    if (threadIdx.x < K) to[K * K + threadIdx.x] = small.used;
}

__device__ SmallSums start(const Problem& problem, const SharedTile& tile) {
    for (int i = threadIdx.x; i < K * K; i += THREADS) {
        tile.gram[i] = problem.gram[i];
        tile.inverse[i] = problem.inverse[i];
    }
    SmallSums small;
    for (int i = 0; i < PAIRS; ++i) small.pairs[i] = 0.0;
    small.used = 0.0;
    return small;
}

// Both products and the solver with one reading of x (pixels, channels). big_n (blocks, K, pitch) must be zero at the
// start; small is (blocks, K K + K). There are at most PACKS WIDE THREADS channels.
extern "C" __global__ void __launch_bounds__(THREADS, KEPT* K <= 32 ? 2 : 1)
    fused_pass(const DATA* x, const float* s, const double* gram, const double* inverse, const double* shift,
               long long pixels, int channels, int pitch, int rows, int weigh_pixels, int aligned,
               double* big_n, double* small) {
    DYNAMIC_SHARED(shared);
    const Problem problem = {s, gram, inverse, shift, pixels, channels, pitch, rows, weigh_pixels, aligned};
    const SharedTile tile = place_tile(shared, problem);
    SmallSums mine = start(problem, tile);
    float sums[KEPT][K];
#pragma unroll
    for (int i = 0; i < KEPT; ++i)
#pragma unroll
        for (int k = 0; k < K; ++k) sums[i][k] = 0.0f;
    double* to = big_n + static_cast<long long>(blockIdx.x) * K * pitch;
    const long long stride = static_cast<long long>(gridDim.x) * rows;
    int spanned = 0;
    for (long long first = static_cast<long long>(blockIdx.x) * rows; first < pixels; first += stride) {
        solve_tile(x, problem, tile, first);
        add_small(problem, tile, mine);
#pragma unroll 2
        for (int p = 0; p < rows; ++p) {
            float x_row[KEPT];
#pragma unroll
            for (int pack = 0; pack < PACKS; ++pack) {
                const int e = (pack * THREADS + static_cast<int>(threadIdx.x)) * WIDE;
                Pack<DATA, WIDE> read;
                for (int i = 0; i < WIDE; ++i) read.v[i] = 0;
                const DATA* row = tile.x + static_cast<long long>(p) * pitch;
                if (e < pitch) read = *reinterpret_cast<const Pack<DATA, WIDE>*>(row + e);
#pragma unroll
                for (int i = 0; i < WIDE; ++i) x_row[pack * WIDE + i] = static_cast<float>(read.v[i]);
            }
#pragma unroll
            for (int k = 0; k < K; k += 4) {
                const Pack<float, 4> c = *reinterpret_cast<const Pack<float, 4>*>(tile.weighted + p * K + k);
#pragma unroll
                for (int j = 0; j < 4; ++j)
#pragma unroll
                    for (int i = 0; i < KEPT; ++i) sums[i][k + j] += x_row[i] * c.v[j];
            }
        }
        spanned += rows;
        if (spanned + rows > MAX_FLOAT32_PIXELS || first + stride >= pixels) {
            spanned = 0;
#pragma unroll
            for (int i = 0; i < KEPT; ++i) {
                const int e = (i / WIDE * THREADS + static_cast<int>(threadIdx.x)) * WIDE + i % WIDE;
#pragma unroll
                for (int k = 0; k < K; ++k) {
                    if (e < pitch) to[static_cast<long long>(k) * pitch + e] += sums[i][k];
                    sums[i][k] = 0.0f;
                }
            }
        }
    }
    write_small(mine, small);
}

// The first product and the solver: writes c and v c (pixels, K), and the small sums.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    solve_pass(const DATA* x, const float* s, const double* gram, const double* inverse, const double* shift,
               long long pixels, int channels, int pitch, int rows, int weigh_pixels, int aligned,
               float* c, float* weighted, double* small) {
    DYNAMIC_SHARED(shared);
    const Problem problem = {s, gram, inverse, shift, pixels, channels, pitch, rows, weigh_pixels, aligned};
    const SharedTile tile = place_tile(shared, problem);
    SmallSums mine = start(problem, tile);
    const long long stride = static_cast<long long>(gridDim.x) * rows;
    for (long long first = static_cast<long long>(blockIdx.x) * rows; first < pixels; first += stride) {
        solve_tile(x, problem, tile, first);
        add_small(problem, tile, mine);
        for (int i = threadIdx.x; i < rows * K; i += THREADS) {
            if (first + i / K < pixels) {
                c[first * K + i] = tile.c[i];
                weighted[first * K + i] = tile.weighted[i];
            }
        }
    }
    write_small(mine, small);
}

// The second product, N = (v c)' x: blockIdx.y selects THREADS WIDE consecutive channels, blockIdx.x every gridDim.x-th
// group of MAX_FLOAT32_PIXELS pixels. big_n is (gridDim.x, K, pitch).
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    outer_pass(const DATA* x, const float* weighted, long long pixels, int channels, int pitch, double* big_n) {
    __shared__ __align__(16) float c[MAX_FLOAT32_PIXELS * K];
    double total[WIDE][K];
#pragma unroll
    for (int i = 0; i < WIDE; ++i)
#pragma unroll
        for (int k = 0; k < K; ++k) total[i][k] = 0.0;
    const int start = blockIdx.y * THREADS * WIDE + threadIdx.x;
    const long long stride = static_cast<long long>(gridDim.x) * MAX_FLOAT32_PIXELS;
    for (long long first = static_cast<long long>(blockIdx.x) * MAX_FLOAT32_PIXELS; first < pixels; first += stride) {
        const int rows = pixels - first < MAX_FLOAT32_PIXELS ? static_cast<int>(pixels - first) : MAX_FLOAT32_PIXELS;
        __syncthreads();
        for (int i = threadIdx.x; i < rows * K; i += THREADS) c[i] = weighted[first * K + i];
        __syncthreads();
        float sums[WIDE][K];
#pragma unroll
        for (int i = 0; i < WIDE; ++i)
#pragma unroll
            for (int k = 0; k < K; ++k) sums[i][k] = 0.0f;
#pragma unroll 4
        for (int p = 0; p < rows; ++p) {
            const DATA* row = x + (first + p) * channels;
            float x_row[WIDE];
#pragma unroll
            for (int i = 0; i < WIDE; ++i) {
                const int e = start + i * THREADS;
                x_row[i] = e < channels ? static_cast<float>(row[e]) : 0.0f;
            }
#pragma unroll
            for (int k = 0; k < K; k += 4) {
                const Pack<float, 4> four = *reinterpret_cast<const Pack<float, 4>*>(c + p * K + k);
#pragma unroll
                for (int j = 0; j < 4; ++j)
#pragma unroll
                    for (int i = 0; i < WIDE; ++i) sums[i][k + j] += x_row[i] * four.v[j];
            }
        }
#pragma unroll
        for (int i = 0; i < WIDE; ++i)
#pragma unroll
            for (int k = 0; k < K; ++k) total[i][k] += sums[i][k];
    }
#pragma unroll
    for (int i = 0; i < WIDE; ++i) {
        const int e = start + i * THREADS;
        if (e < pitch)
#pragma unroll
            for (int k = 0; k < K; ++k)
                big_n[(static_cast<long long>(blockIdx.x) * K + k) * pitch + e] = total[i][k];
    }
}

__device__ void block_sum(double mine, double* out) {
    __shared__ double parts[WARPS];
    mine = group_sum<WARP>(mine);
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = mine;
    __syncthreads();
    if (threadIdx.x == 0) {
        double total = 0.0;
        for (int i = 0; i < WARPS; ++i) total += parts[i];
        out[blockIdx.x] = total;
    }
}

// Residual x - c s, with c (pixels, components) and s (components, channels) in the units of the data, one pixel per
// warp: rms (pixels,) unless it is null, and loss (blocks,) = sum v w residual^2. Without components that is the norm
// of x.
extern "C" __global__ void __launch_bounds__(THREADS)
    residual_pass(const DATA* x, const float* c, const float* s, const double* w, long long pixels, int channels,
                  int components, int weigh_pixels, float* rms, double* loss) {
    const int lane = threadIdx.x % WARP;
    const long long stride = static_cast<long long>(gridDim.x) * WARPS;
    double mine = 0.0;
    for (long long p = blockIdx.x * static_cast<long long>(WARPS) + threadIdx.x / WARP; p < pixels; p += stride) {
        double square = 0.0, costs = 0.0, total = 0.0;
        for (int e = lane; e < channels; e += WARP) {
            const float value = static_cast<float>(x[p * channels + e]);
            float residual = value;
            for (int k = 0; k < components; ++k)
                residual -= c[p * components + k] * s[static_cast<long long>(k) * channels + e];
            square += static_cast<double>(residual) * residual;
            costs += w[e] * residual * residual;
            total += value;
        }
        square = group_sum<WARP>(square);
        costs = group_sum<WARP>(costs);
        total = group_sum<WARP>(total);
        if (lane == 0) {
            if (rms != nullptr) rms[p] = static_cast<float>(sqrt(square / channels));
            mine += weigh_pixels == 0 ? costs : (total > 0.0 ? costs * channels / total : 0.0);
        }
    }
    block_sum(mine, loss);
}
