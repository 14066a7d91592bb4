// Poisson passes over a block of pixels: the twin of scalehsi/kernels/poisson/passes.py.
//
// `solve_counts`: a warp solves a pixel by expectation maximisation, then by Newton steps with the safeguards of the
// CPU. The lanes divide the filled channels and gather the endmembers there from cache; for the small problem lane k
// holds component k. Endmembers are scaled to a sum of one, so the linear term is one for each.
// `sum_channels`, `join_channels`: sums for a Newton step of s, from counts ordered by channel. The model is evaluated
// again there, which costs less than to store x / y and x / y^2 for every count and gather them. Every number has one
// writer, so results do not depend on the order of the thread blocks.
//
// Set at compile time: COMPONENTS, K padded to 4, 8, 16 or 32; CHANNEL and VALUE, the types of the counts.
#include "lanes.cu"

constexpr int K = COMPONENTS;
constexpr int THREADS = 128;
constexpr int WARPS = THREADS / WARP;
constexpr int TILE = K < 8 ? 4 : 8;  // side of a tile of the Hessian, whose sums fit into the registers of a thread
constexpr int TILES = K / TILE;
constexpr int SQUARE = TILE * TILE;

constexpr int EM_STEPS = 3;
constexpr int NEWTON_STEPS = 24;
constexpr int HALVINGS = 40;
constexpr double MAX_END_SLOPE = 0.5;  // a step is shortened if its last slope exceeds this part of its first slope
constexpr double DECREMENT = 1e-10;    // predicted gain, relative to the counts of the pixel, at which Newton stops
constexpr double RIDGE = 1e-10;        // added to each diagonal element in proportion to it, for equal endmembers
constexpr float MIN_MODEL = 1e-17f;    // smallest value of the model: its square still has an inverse in float32

struct alignas(16) Four {
    float v[4];
};

// Filled channels of a pixel, and the endmembers (channels, K), float32, zero for padded components.
struct Pixel {
    const CHANNEL* channel;
    const VALUE* value;
    const float* st;
    int filled;
};

__device__ __forceinline__ void gather(const float* row, float (&s)[K]) {
#pragma unroll
    for (int k = 0; k < K; k += 4) {
        const Four four = *reinterpret_cast<const Four*>(row + k);
#pragma unroll
        for (int i = 0; i < 4; ++i) s[k + i] = four.v[i];
    }
}

__device__ __forceinline__ float dot(const float (&c)[K], const float (&s)[K]) {
    float y = 0.0f;
#pragma unroll
    for (int k = 0; k < K; ++k) y += c[k] * s[k];
    return y;
}

// Send the value of lane k to c[k] of all lanes.
__device__ __forceinline__ void share(double mine, float (&c)[K]) {
#pragma unroll
    for (int k = 0; k < K; ++k) c[k] = static_cast<float>(__shfl_sync(EVERY_LANE, mine, k, K));
}

// Return gradient_k = sum (x / y) s_k to lane k.
__device__ double slope(const Pixel& pixel, double now) {
    float c[K];
    share(now, c);
    float sums[K];
#pragma unroll
    for (int k = 0; k < K; ++k) sums[k] = 0.0f;
    for (int i = threadIdx.x % WARP; i < pixel.filled; i += WARP) {
        float s[K];
        gather(pixel.st + static_cast<long long>(pixel.channel[i]) * K, s);
        const float r = static_cast<float>(pixel.value[i]) / fmaxf(dot(c, s), MIN_MODEL);
#pragma unroll
        for (int k = 0; k < K; ++k) sums[k] += r * s[k];
    }
    sum_lanes(sums);
    return __shfl_sync(EVERY_LANE, sums[0], threadIdx.x % K * (WARP / K));
}

// Compute one tile of hessian = sum (x / y^2) s s', one hessian per warp; on the diagonal also a part of the gradient.
template <bool DIAGONAL>
__device__ __forceinline__ void tile(const Pixel& pixel, const float (&c)[K], int a, int b, double* hessian,
                                     double& gradient) {
    const int lane = threadIdx.x % WARP;
    float square[SQUARE], line[TILE];
#pragma unroll
    for (int i = 0; i < SQUARE; ++i) square[i] = 0.0f;
#pragma unroll
    for (int i = 0; i < TILE; ++i) line[i] = 0.0f;
    for (int i = lane; i < pixel.filled; i += WARP) {
        const float* row = pixel.st + static_cast<long long>(pixel.channel[i]) * K;
        float s[K];
        gather(row, s);
        const float y = fmaxf(dot(c, s), MIN_MODEL);
        const float r = static_cast<float>(pixel.value[i]) / y;
        const float q = r / y;
#pragma unroll
        for (int k = 0; k < TILE; ++k) {
            const float left = TILES == 1 ? s[k] : row[a * TILE + k];  // registers cannot be indexed at run time
            if (DIAGONAL) line[k] += r * left;
            const float share = q * left;
#pragma unroll
            for (int j = 0; j < TILE; ++j)
                if (!DIAGONAL || j <= k) square[k * TILE + j] += share * (TILES == 1 ? s[j] : row[b * TILE + j]);
        }
    }
    sum_lanes(square);
    constexpr int COPIES = SQUARE < WARP ? WARP / SQUARE : 1;
    constexpr int SUMS = SQUARE < WARP ? 1 : SQUARE / WARP;
    if (lane % COPIES == 0) {
#pragma unroll
        for (int i = 0; i < SUMS; ++i) {
            const int k = (lane / COPIES * SUMS + i) / TILE;
            const int j = (lane / COPIES * SUMS + i) % TILE;
            if (!DIAGONAL || j <= k) {
                hessian[(a * TILE + k) * K + b * TILE + j] = square[i];
                hessian[(b * TILE + j) * K + a * TILE + k] = square[i];
            }
        }
    }
    if (DIAGONAL) {
        sum_lanes(line);
        const double found = __shfl_sync(EVERY_LANE, line[0], threadIdx.x % TILE * (WARP / TILE));
        gradient = threadIdx.x % K / TILE == a ? found : gradient;
    }
}

// Return gradient_k to lane k, and write hessian (K, K) to the shared memory of the warp.
__device__ double derivatives(const Pixel& pixel, double now, double* hessian) {
    float c[K];
    share(now, c);
    double gradient = 0.0;
    __syncwarp();
    for (int a = 0; a < TILES; ++a) {
        tile<true>(pixel, c, a, a, hessian, gradient);
        for (int b = 0; b < a; ++b) tile<false>(pixel, c, a, b, hessian, gradient);
    }
    __syncwarp();
    return gradient;
}

// Find the part of step `d` from `before` at which the slope of the objective is small, by bisection.
__device__ double step_length(const Pixel& pixel, double before, double d, double fall) {
    float c[K], change[K];
    share(before, c);
    share(d, change);
    const double level = group_sum<K>(d);
    double low = 0.0, high = 1.0;
    for (int turn = 0; turn < HALVINGS; ++turn) {
        const double step = 0.5 * (low + high);
        double end = 0.0;
        for (int i = threadIdx.x % WARP; i < pixel.filled; i += WARP) {
            float s[K];
            gather(pixel.st + static_cast<long long>(pixel.channel[i]) * K, s);
            const float change_here = dot(change, s);
            end -= static_cast<float>(pixel.value[i]) * change_here /
                   fmaxf(fmaxf(dot(c, s), MIN_MODEL) + static_cast<float>(step) * change_here, MIN_MODEL);
        }
        end = level + group_sum<WARP>(end);
        if (end > -MAX_END_SLOPE * fall)
            high = step;
        else if (end < MAX_END_SLOPE * fall)
            low = step;
        else
            return step;
    }
    return low;
}

// Maximise the likelihood by Newton steps from `now`.
__device__ double newton(const Pixel& pixel, double now, double total, double* hessian) {
    const int me = threadIdx.x % K;
    double gradient = derivatives(pixel, now, hessian);
    for (int turn = 0; turn < NEWTON_STEPS; ++turn) {
        // Minimise g.d + 1/2 d'Hd over now + d >= 0, written for the new value now + d.
        if (threadIdx.x % WARP < K) hessian[me * K + me] *= 1.0 + RIDGE;
        __syncwarp();
        const double right = times<K>(hessian, now) + gradient - 1.0;
        const double target = non_negative<K>(hessian, right, now);
        const double d = target - now;
        const double fall = group_sum<K>(d * (1.0 - gradient));
        const double decrement = group_sum<K>(d * times<K>(hessian, d));
        const double before = now;
        now = target;
        if (decrement < DECREMENT * total || !(fall < 0.0)) break;
        gradient = derivatives(pixel, now, hessian);
        if (group_sum<K>(d * (1.0 - gradient)) > -MAX_END_SLOPE * fall) {
            now = before + step_length(pixel, before, d, fall) * d;
            gradient = derivatives(pixel, now, hessian);
        }
    }
    return now;
}

// Solve the abundances c (pixels, K) for endmembers st (channels, K), whose columns sum to one, or to zero if `alive`
// (K,) is zero; components is K without padding. filled_squares (pixels,): sum of x (x - 2 y) over filled channels.
// sums (blocks WARPS, K + 1): sum c, then sum x log y.
extern "C" __global__ void __launch_bounds__(THREADS)
    solve_counts(const long long* indptr, const CHANNEL* channel, const VALUE* value, const float* st,
                 const float* alive, long long pixels, int components, float* c, double* filled_squares,
                 double* sums) {
    __shared__ double hessians[WARPS][K * K];
    const int lane = threadIdx.x % WARP;
    const int warp = threadIdx.x / WARP;
    const int me = threadIdx.x % K;
    const long long mine = static_cast<long long>(blockIdx.x) * WARPS + warp;
    double used = 0.0, likelihood = 0.0;
    for (long long p = mine; p < pixels; p += static_cast<long long>(gridDim.x) * WARPS) {
        const long long first = indptr[p];
        const Pixel pixel = {channel + first, value + first, st, static_cast<int>(indptr[p + 1] - first)};
        double total = 0.0;
        for (int i = lane; i < pixel.filled; i += WARP) total += pixel.value[i];
        total = group_sum<WARP>(total);
        double now = 0.0;
        if (total > 0.0) {
            now = alive[me] > 0.0f ? total / components : 0.0;
            for (int turn = 0; turn < EM_STEPS; ++turn) now *= slope(pixel, now);
            now = newton(pixel, now, total, hessians[warp]);
        }
        // Rounded here, so that all sums use the abundances that are stored.
        const float rounded = static_cast<float>(now);
        float shares[K];
        share(rounded, shares);
        double squares = 0.0;
        for (int i = lane; i < pixel.filled; i += WARP) {
            float s[K];
            gather(st + static_cast<long long>(pixel.channel[i]) * K, s);
            const float y = fmaxf(dot(shares, s), MIN_MODEL);
            const double x = pixel.value[i];
            likelihood += x * logf(y);
            squares += x * (x - 2.0 * y);
        }
        squares = group_sum<WARP>(squares);
        if (lane == 0) filled_squares[p] = squares;
        if (lane < K) c[p * K + me] = rounded;
        used += rounded;
    }
    likelihood = group_sum<WARP>(likelihood);
    if (lane < K) sums[mine * (K + 1) + me] = used;
    if (lane == 0) sums[mine * (K + 1) + K] = likelihood;
}

// Sum one tile of one piece of a channel, from registers through shared memory to `out`.
template <bool DIAGONAL>
__device__ __forceinline__ void channel_tile(const int* pixel, const VALUE* value, long long first, long long last,
                                             const float* c, const float (&s)[K], int a, int b,
                                             float (&parts)[WARPS][SQUARE + TILE], double* out) {
    const int lane = threadIdx.x % WARP;
    const int warp = threadIdx.x / WARP;
    float square[SQUARE], line[TILE];
#pragma unroll
    for (int i = 0; i < SQUARE; ++i) square[i] = 0.0f;
#pragma unroll
    for (int i = 0; i < TILE; ++i) line[i] = 0.0f;
    for (long long i = first + threadIdx.x; i < last; i += THREADS) {
        const float* row = c + static_cast<long long>(pixel[i]) * K;
        float shares[K];
        gather(row, shares);
        const float y = fmaxf(dot(shares, s), MIN_MODEL);
        const float r = static_cast<float>(value[i]) / y;
        const float q = r / y;
#pragma unroll
        for (int k = 0; k < TILE; ++k) {
            const float left = TILES == 1 ? shares[k] : row[a * TILE + k];
            if (DIAGONAL) line[k] += r * left;
            const float share = q * left;
#pragma unroll
            for (int j = 0; j < TILE; ++j)
                if (!DIAGONAL || j <= k) square[k * TILE + j] += share * (TILES == 1 ? shares[j] : row[b * TILE + j]);
        }
    }
    sum_lanes(square);
    sum_lanes(line);
    constexpr int COPIES = SQUARE < WARP ? WARP / SQUARE : 1;
    constexpr int SUMS = SQUARE < WARP ? 1 : SQUARE / WARP;
    if (lane % COPIES == 0)
#pragma unroll
        for (int i = 0; i < SUMS; ++i) parts[warp][lane / COPIES * SUMS + i] = square[i];
    if (lane % (WARP / TILE) == 0) parts[warp][SQUARE + lane / (WARP / TILE)] = line[0];
    __syncthreads();
    for (int i = threadIdx.x; i < SQUARE + TILE; i += THREADS) {
        double total = 0.0;
        for (int w = 0; w < WARPS; ++w) total += parts[w][i];
        const int k = a * TILE + i / TILE;
        const int j = b * TILE + i % TILE;
        if (i < SQUARE && j <= k) out[K + k * (k + 1) / 2 + j] = total;
        if (i >= SQUARE && DIAGONAL) out[a * TILE + i - SQUARE] = total;
    }
    __syncthreads();
}

// A thread block sums a piece of a channel: counts start[piece] to start[piece + 1] of all counts ordered by channel,
// each with its pixel. out (pieces, K + K (K + 1) / 2): sum c x / y, and the lower triangle of sum c c' x / y^2.
extern "C" __global__ void __launch_bounds__(THREADS)
    sum_channels(const int* pixel, const VALUE* value, const long long* start, const int* channel, const float* st,
                 const float* c, double* out) {
    __shared__ float parts[WARPS][SQUARE + TILE];
    const long long piece = blockIdx.x;
    float s[K];
    gather(st + static_cast<long long>(channel[piece]) * K, s);
    double* to = out + piece * (K + K * (K + 1) / 2);
    for (int a = 0; a < TILES; ++a) {
        channel_tile<true>(pixel, value, start[piece], start[piece + 1], c, s, a, a, parts, to);
        for (int b = 0; b < a; ++b)
            channel_tile<false>(pixel, value, start[piece], start[piece + 1], c, s, a, b, parts, to);
    }
}

// Sum the pieces of each channel in order: first_piece (channels + 1,), parts (pieces, size) -> out (channels, size).
extern "C" __global__ void join_channels(const double* parts, const long long* first_piece, int channels, int size,
                                         double* out) {
    const long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= static_cast<long long>(channels) * size) return;
    double total = 0.0;
    for (long long piece = first_piece[i / size]; piece < first_piece[i / size + 1]; ++piece)
        total += parts[piece * size + i % size];
    out[i] = total;
}
