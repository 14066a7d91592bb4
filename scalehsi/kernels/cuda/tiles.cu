// Least squares of a tile of pixels in shared memory: b = x s', and exact non-negative abundances.
//
// The macros are those of frobenius.cu, which explains them.
#ifndef SCALEHSI_TILES
#define SCALEHSI_TILES
#include "lanes.cu"

constexpr int K = COMPONENTS;
constexpr int THREADS = 256;
constexpr int WARPS = THREADS / WARP;
constexpr int MAX_FLOAT32_PIXELS = 64;                   // pixels that a float32 sum may span
constexpr int WIDE = K <= 8 ? 4 : (K == 16 ? 2 : 1);     // adjacent channels of a thread
constexpr int KEPT = PACKS * WIDE;                       // channels of a thread in `fused_pass`
constexpr int STEP = 4;                                  // channels that a thread reads at a time in b = x s'
constexpr int PAIRS = (K * K + THREADS - 1) / THREADS;
constexpr int PRODUCTS = TILE_PIXELS * K;
constexpr int COPIES = PRODUCTS < WARP ? WARP / PRODUCTS : 1;  // lanes that end with the same sum
constexpr int SUMS = PRODUCTS < WARP ? 1 : PRODUCTS / WARP;

template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
    T v[N];
};

// The problem that all pixels share. s (K, pitch): endmembers times weights of channels, zero beyond K and E. gram,
// inverse (K, K) and shift (K,) are float64, scaled to components of unit length; the padding is the unit matrix.
struct Problem {
    const float* s;
    const double* gram;
    const double* inverse;
    const double* shift;
    long long pixels;
    int channels;
    int pitch;
    int rows;
    int weigh_pixels;
    int aligned;
};

struct SharedTile {
    DATA* x;         // (rows, pitch)
    float* b;        // (slices, rows, K): partial sums of b, which the solver adds
    float* c;        // (rows, K): rounded once; both N and M use the rounded values
    float* weighted; // (rows, K): v c
    float* v;        // (rows,)
    double* gram;    // (K, K)
    double* inverse; // (K, K)
};

__device__ SharedTile place_tile(unsigned char* shared, const Problem& problem) {
    SharedTile tile;
    tile.gram = reinterpret_cast<double*>(shared);
    tile.inverse = tile.gram + K * K;
    tile.x = reinterpret_cast<DATA*>(tile.inverse + K * K);
    tile.b = reinterpret_cast<float*>(tile.x + static_cast<long long>(problem.rows) * problem.pitch);
    tile.c = tile.b + (problem.rows > WARPS * TILE_PIXELS ? problem.rows : WARPS * TILE_PIXELS) * K;
    tile.weighted = tile.c + problem.rows * K;
    tile.v = tile.weighted + problem.rows * K;
    return tile;
}

// Copy pixels without conversion; fill up with zeros beyond the last pixel and channel.
__device__ void read_tile(const DATA* x, long long first, const Problem& problem, DATA* tile) {
    const int warp = threadIdx.x / WARP;
    const int lane = threadIdx.x % WARP;
    const int per_read = 16 / static_cast<int>(sizeof(DATA));
    for (int p = warp; p < problem.rows; p += WARPS) {
        DATA* to = tile + static_cast<long long>(p) * problem.pitch;
        const bool real = first + p < problem.pixels;
        const DATA* from = x + (real ? first + p : 0) * problem.channels;
        if (real && problem.aligned != 0) {
#pragma unroll 4
            for (int e = lane * per_read; e < problem.channels; e += WARP * per_read)
                *reinterpret_cast<uint4*>(to + e) = *reinterpret_cast<const uint4*>(from + e);
            for (int e = problem.channels + lane; e < problem.pitch; e += WARP) to[e] = 0;
        } else {
#pragma unroll 4
            for (int e = lane; e < problem.pitch; e += WARP)
                to[e] = real && e < problem.channels ? from[e] : static_cast<DATA>(0);
        }
    }
}

// b = x s': a warp processes TILE_PIXELS pixels, all components, and a slice of the channels. Returns the number of
// slices.
__device__ int products(const Problem& problem, const SharedTile& tile) {
    const int warp = threadIdx.x / WARP;
    const int lane = threadIdx.x % WARP;
    const int groups = problem.rows / TILE_PIXELS;
    const int slices = WARPS > groups ? WARPS / groups : 1;
    const int parallel = WARPS / slices;
    const int slice = warp % slices;
    for (int group = warp / slices; group < groups && warp < parallel * slices; group += parallel) {
        const DATA* rows = tile.x + static_cast<long long>(group) * TILE_PIXELS * problem.pitch;
        float sums[PRODUCTS];
#pragma unroll
        for (int i = 0; i < PRODUCTS; ++i) sums[i] = 0.0f;
        for (int e = (slice * WARP + lane) * STEP; e < problem.pitch; e += slices * WARP * STEP) {
            float x[TILE_PIXELS][STEP];
#pragma unroll
            for (int p = 0; p < TILE_PIXELS; ++p) {
                const Pack<DATA, STEP> read = *reinterpret_cast<const Pack<DATA, STEP>*>(rows + p * problem.pitch + e);
#pragma unroll
                for (int i = 0; i < STEP; ++i) x[p][i] = static_cast<float>(read.v[i]);
            }
#pragma unroll
            for (int k = 0; k < K; ++k) {
                const float* row = problem.s + static_cast<long long>(k) * problem.pitch;
                const Pack<float, STEP> s = *reinterpret_cast<const Pack<float, STEP>*>(row + e);
#pragma unroll
                for (int p = 0; p < TILE_PIXELS; ++p)
#pragma unroll
                    for (int i = 0; i < STEP; ++i) sums[p * K + k] += x[p][i] * s.v[i];
            }
        }
        sum_lanes(sums);
        float* to = tile.b + (slice * problem.rows + group * TILE_PIXELS) * K;
        if (lane % COPIES == 0)
#pragma unroll
            for (int i = 0; i < SUMS; ++i) to[lane / COPIES * SUMS + i] = sums[i];
    }
    return slices;
}

// Weight of each pixel: one over its mean, zero for an empty pixel, whose residual is zero anyway.
__device__ void pixel_weights(const Problem& problem, const SharedTile& tile) {
    const int lane = threadIdx.x % WARP;
    for (int p = threadIdx.x / WARP; p < problem.rows; p += WARPS) {
        float total[1] = {1.0f};
        if (problem.weigh_pixels != 0) {
            total[0] = 0.0f;
            for (int e = lane; e < problem.pitch; e += WARP)
                total[0] += static_cast<float>(tile.x[static_cast<long long>(p) * problem.pitch + e]);
            sum_lanes(total);
            total[0] /= static_cast<float>(problem.channels);
        }
        if (lane == 0) tile.v[p] = total[0] > 0.0f ? 1.0f / total[0] : 0.0f;
    }
}

// Exact abundances of the tile, one pixel per group of K lanes.
__device__ void solve(const Problem& problem, const SharedTile& tile, long long first, int slices) {
    const int me = threadIdx.x % K;
    for (int base = 0; base < problem.rows; base += THREADS / K) {
        const int p = base + threadIdx.x / K;
        const bool real = p < problem.rows && first + p < problem.pixels;
        double right = 0.0;
        if (real) {
            for (int slice = 0; slice < slices; ++slice) right += tile.b[(slice * problem.rows + p) * K + me];
            right -= problem.shift[me];
        }
#ifdef SIMPLEX
        // Rows beyond the last pixel would have a sum of one, too.
        const float c = static_cast<float>(on_simplex<K, SIMPLEX>(tile.gram, right) * (real ? 1.0 : 0.0));
#else
        const double start = times<K>(tile.inverse, right);
        const float c = static_cast<float>(non_negative<K>(tile.gram, right, start > 0.0 ? start : 0.0));
#endif
        if (p < problem.rows) {
            tile.c[p * K + me] = c;
            tile.weighted[p * K + me] = tile.v[p] * c;
        }
    }
}

// Read a tile and solve it; on return all results of the tile are in shared memory.
__device__ void solve_tile(const DATA* x, const Problem& problem, const SharedTile& tile, long long first) {
    __syncthreads();  // all threads have finished with the last tile
    read_tile(x, first, problem, tile.x);
    __syncthreads();
    const int slices = products(problem, tile);
    pixel_weights(problem, tile);
    __syncthreads();
    solve(problem, tile, first, slices);
    __syncthreads();
}

#endif
