// Least squares of a tile of pixels that lies in shared memory: b = x s', and exact non-negative abundances.
//
// The same set of macros as in frobenius.cu, which says what they are.
#ifndef SCALEHSI_TILES
#define SCALEHSI_TILES
#include "lanes.cu"

constexpr int K = COMPONENTS;
constexpr int THREADS = 256;
constexpr int WARPS = THREADS / WARP;
constexpr int FLUSH = 64;                                // pixels that float32 sums may span
constexpr int WIDE = K <= 8 ? 4 : (K == 16 ? 2 : 1);     // channels of a thread that lie together
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

// What all pixels share. s (K, pitch): endmembers times weights of channels, zero beyond K and E. gram, inverse (K, K)
// and shift (K,) are float64, in units in which every component has length one; what is padded is the unit matrix.
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

struct Room {
    DATA* tile;      // (rows, pitch)
    float* b;        // (slices, rows, K): partial sums of b, added up by the solver
    float* c;        // (rows, K), rounded once: both sums are made of the rounded
    float* weighted; // (rows, K): v c
    float* v;        // (rows,)
    double* gram;    // (K, K)
    double* inverse; // (K, K)
};

__device__ Room rooms(unsigned char* shared, const Problem& problem) {
    Room room;
    room.gram = reinterpret_cast<double*>(shared);
    room.inverse = room.gram + K * K;
    room.tile = reinterpret_cast<DATA*>(room.inverse + K * K);
    room.b = reinterpret_cast<float*>(room.tile + static_cast<long long>(problem.rows) * problem.pitch);
    room.c = room.b + (problem.rows > WARPS * TILE_PIXELS ? problem.rows : WARPS * TILE_PIXELS) * K;
    room.weighted = room.c + problem.rows * K;
    room.v = room.weighted + problem.rows * K;
    return room;
}

// Copy pixels as they are; what is beyond the last pixel or channel becomes zero.
__device__ void read_tile(const DATA* x, long long first, const Problem& problem, DATA* tile) {
    const int warp = threadIdx.x / WARP;
    const int lane = threadIdx.x % WARP;
    const int together = 16 / static_cast<int>(sizeof(DATA));
    for (int p = warp; p < problem.rows; p += WARPS) {
        DATA* to = tile + static_cast<long long>(p) * problem.pitch;
        const bool real = first + p < problem.pixels;
        const DATA* from = x + (real ? first + p : 0) * problem.channels;
        if (real && problem.aligned != 0) {
#pragma unroll 4
            for (int e = lane * together; e < problem.channels; e += WARP * together)
                *reinterpret_cast<uint4*>(to + e) = *reinterpret_cast<const uint4*>(from + e);
            for (int e = problem.channels + lane; e < problem.pitch; e += WARP) to[e] = 0;
        } else {
#pragma unroll 4
            for (int e = lane; e < problem.pitch; e += WARP)
                to[e] = real && e < problem.channels ? from[e] : static_cast<DATA>(0);
        }
    }
}

// b = x s': a warp takes TILE_PIXELS pixels, all components, and a slice of the channels. Gives how many slices.
__device__ int products(const Problem& problem, const Room& room) {
    const int warp = threadIdx.x / WARP;
    const int lane = threadIdx.x % WARP;
    const int groups = problem.rows / TILE_PIXELS;
    const int slices = WARPS > groups ? WARPS / groups : 1;
    const int abreast = WARPS / slices;
    const int slice = warp % slices;
    for (int group = warp / slices; group < groups && warp < abreast * slices; group += abreast) {
        const DATA* rows = room.tile + static_cast<long long>(group) * TILE_PIXELS * problem.pitch;
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
        float* to = room.b + (slice * problem.rows + group * TILE_PIXELS) * K;
        if (lane % COPIES == 0)
#pragma unroll
            for (int i = 0; i < SUMS; ++i) to[lane / COPIES * SUMS + i] = sums[i];
    }
    return slices;
}

// The weight of each pixel: one over its mean, nothing for an empty one, whose residual is zero anyway.
__device__ void pixel_weights(const Problem& problem, const Room& room) {
    const int lane = threadIdx.x % WARP;
    for (int p = threadIdx.x / WARP; p < problem.rows; p += WARPS) {
        float total[1] = {1.0f};
        if (problem.weigh_pixels != 0) {
            total[0] = 0.0f;
            for (int e = lane; e < problem.pitch; e += WARP)
                total[0] += static_cast<float>(room.tile[static_cast<long long>(p) * problem.pitch + e]);
            sum_lanes(total);
            total[0] /= static_cast<float>(problem.channels);
        }
        if (lane == 0) room.v[p] = total[0] > 0.0f ? 1.0f / total[0] : 0.0f;
    }
}

// Exact abundances of the tile, a group of K lanes a pixel.
__device__ void solve(const Problem& problem, const Room& room, long long first, int slices) {
    const int me = threadIdx.x % K;
    for (int base = 0; base < problem.rows; base += THREADS / K) {
        const int p = base + threadIdx.x / K;
        const bool real = p < problem.rows && first + p < problem.pixels;
        double right = 0.0;
        if (real) {
            for (int slice = 0; slice < slices; ++slice) right += room.b[(slice * problem.rows + p) * K + me];
            right -= problem.shift[me];
        }
        const double start = times<K>(room.inverse, right);
        const float c = static_cast<float>(non_negative<K>(room.gram, right, start > 0.0 ? start : 0.0));
        if (p < problem.rows) {
            room.c[p * K + me] = c;
            room.weighted[p * K + me] = room.v[p] * c;
        }
    }
}

// Read a tile and solve it; ends with all of the tile's numbers in shared memory.
__device__ void solve_tile(const DATA* x, const Problem& problem, const Room& room, long long first) {
    __syncthreads();  // the tile before is done with
    read_tile(x, first, problem, room.tile);
    __syncthreads();
    const int slices = products(problem, room);
    pixel_weights(problem, room);
    __syncthreads();
    solve(problem, room, first, slices);
    __syncthreads();
}

#endif
