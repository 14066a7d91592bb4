// Device functions for both losses: sums over the lanes of a warp, and small non-negative quadratic programmes.
//
// A group is K neighbouring lanes of a warp, K a power of two up to 32, and solves one problem. Lane k holds the values
// of component k, so a set of components is a ballot, and a matrix is read column by column without bank conflicts. All
// lanes of a warp must take part in every call, also groups without work.
#ifndef SCALEHSI_LANES
#define SCALEHSI_LANES

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

constexpr unsigned EVERY_LANE = 0xffffffffu;
constexpr int WARP = 32;

// Sum N values over the 32 lanes. At each step a lane sends one half of its values and adds to the other half, so that
// N values cost N shuffles instead of 5 N. Sum i is then v[i % R] of the lanes around 32 i / N, with R = N / 32 or 1.
template <int N>
__device__ __forceinline__ void sum_lanes(float (&v)[N]) {
    const int lane = threadIdx.x % WARP;
    int half = N / 2;
#pragma unroll
    for (int bit = 16; bit > 0; bit /= 2) {
        if (half > 0) {
            const bool upper = (lane & bit) != 0;
#pragma unroll
            for (int i = 0; i < N / 2; ++i) {
                if (i < half) {
                    const float give = upper ? v[i] : v[i + half];
                    const float keep = upper ? v[i + half] : v[i];
                    v[i] = keep + __shfl_xor_sync(EVERY_LANE, give, bit);
                }
            }
            half /= 2;
        } else {
            v[0] += __shfl_xor_sync(EVERY_LANE, v[0], bit);
        }
    }
}

// All lanes of a group return the same bits: addition commutes, and every lane adds the same pairs.
template <int K>
__device__ __forceinline__ double group_sum(double v) {
#pragma unroll
    for (int bit = K / 2; bit > 0; bit /= 2) v += __shfl_xor_sync(EVERY_LANE, v, bit);
    return v;
}

template <int K>
__device__ __forceinline__ double group_max(double v) {
#pragma unroll
    for (int bit = K / 2; bit > 0; bit /= 2) v = fmax(v, __shfl_xor_sync(EVERY_LANE, v, bit));
    return v;
}

template <int K>
__device__ __forceinline__ unsigned group_ballot(bool v) {
    const int first = threadIdx.x % WARP / K * K;
    return (__ballot_sync(EVERY_LANE, v) >> first) & (EVERY_LANE >> (WARP - K));
}

// Product of column k of a symmetric matrix (K, K) and a vector with one value per lane of the group.
template <int K>
__device__ __forceinline__ double times(const double* matrix, double v) {
    const int me = threadIdx.x % K;
    double total = 0.0;
#pragma unroll
    for (int j = 0; j < K; ++j) total += matrix[j * K + me] * __shfl_sync(EVERY_LANE, v, j, K);
    return total;
}

// Solve the equations of the members of a set by elimination without pivoting (the matrix is positive definite). The
// others are zero: their rows are replaced by those of the unit matrix, so that all groups take the same steps.
template <int K>
__device__ double solve_members(const double* matrix, double right, unsigned members) {
    const int me = threadIdx.x % K;
    const bool inside = (members >> me & 1u) != 0;
    double row[K];
#pragma unroll
    for (int j = 0; j < K; ++j)
        row[j] = inside && (members >> j & 1u) != 0 ? matrix[j * K + me] : (j == me ? 1.0 : 0.0);
    double z = inside ? right : 0.0;
    double inverse = 1.0;
#pragma unroll
    for (int j = 0; j < K; ++j) {
        const double pivot = 1.0 / fmax(__shfl_sync(EVERY_LANE, row[j], j, K), 1e-300);
        inverse = me == j ? pivot : inverse;
        const double factor = me > j ? row[j] * pivot : 0.0;
        z -= factor * __shfl_sync(EVERY_LANE, z, j, K);
#pragma unroll
        for (int t = j + 1; t < K; ++t) row[t] -= factor * __shfl_sync(EVERY_LANE, row[t], j, K);
    }
#pragma unroll
    for (int j = K - 1; j >= 0; --j) {
        z = me == j ? z * inverse : z;
        const double found = __shfl_sync(EVERY_LANE, z, j, K);
        z -= me < j ? row[j] * found : 0.0;
    }
    return z;
}

// Minimise 1/2 c'Gc - b'c over c >= 0 by the active set of `scalehsi.kernels.quadratic.nnls.solve_one`, from a feasible
// start c; its positive components are the first passive set. `matrix` is G (K, K), symmetric, in shared memory;
// `right` is b.
template <int K>
__device__ double non_negative(const double* matrix, double right, double c) {
    const int me = threadIdx.x % K;
    const double tolerance = 1e-12 * group_max<K>(fabs(right));
    unsigned members = group_ballot<K>(c > 0.0);
    int added = -1;
    bool busy = true;
    for (int turn = 0; turn < 10 * K + 10; ++turn) {
        if (__any_sync(EVERY_LANE, busy) == 0) break;
        const double z = solve_members<K>(matrix, right, members);
        const bool inside = (members >> me & 1u) != 0;
        // Longest step towards z before a component reaches zero.
        const bool low = inside && z <= 0.0;
        const double ratio = low ? (c > 0.0 ? c / (c - z) : 0.0) : 2.0;
        const double step = -group_max<K>(-ratio);
        const unsigned lowest = group_ballot<K>(low && ratio == step);
        const bool blocked = lowest != 0;
        const int blocking = __ffs(static_cast<int>(lowest)) - 1;
        const double moved = inside ? (blocked ? c + step * (z - c) : z) : c;
        const bool leaves = blocked && inside && (moved <= 0.0 || me == blocking);
        const unsigned leaving = group_ballot<K>(leaves);
        const double value = leaves ? 0.0 : moved;
        // Optimal unless increasing a component from zero lowers the objective.
        const double slope = right - times<K>(matrix, value);
        const double best = group_max<K>(inside ? 0.0 : slope);
        const unsigned winner = group_ballot<K>(!inside && slope == best && best > tolerance);
        if (busy) {
            c = value;
            if (blocked) {
                members &= ~leaving;
                busy = blocking != added || step != 0.0;  // else the component was added because of rounding
            } else if (winner != 0) {
                added = __ffs(static_cast<int>(winner)) - 1;
                members |= 1u << added;
            } else {
                busy = false;
            }
        }
    }
    return c;
}

// Minimise 1/2 c'Gc - b'c over c >= 0 with a sum of one, by the active set of `block_pivoting._active_set_on_simplex`
// from the best corner. Only the first N of the K lanes are components; the others are padding.
template <int K, int N>
__device__ double on_simplex(const double* matrix, double right) {
    const int me = threadIdx.x % K;
    const double own = matrix[me * K + me];
    const double scale = group_max<K>(me < N ? fmax(fabs(right), own) : 0.0);
    const double corner = me < N ? right - 0.5 * own : -1e300;
    const unsigned firsts = group_ballot<K>(corner == group_max<K>(corner));
    unsigned members = firsts & (~firsts + 1u);
    double c = (members >> me & 1u) != 0 ? 1.0 : 0.0;
    int added = -1;
    bool busy = true;
    for (int turn = 0; turn < 20 * N + 20; ++turn) {
        if (__any_sync(EVERY_LANE, busy) == 0) break;
        const double ones = solve_members<K>(matrix, 1.0, members);
        double z = solve_members<K>(matrix, right, members);
        const double multiplier = (group_sum<K>(z) - 1.0) / group_sum<K>(ones);
        z -= multiplier * ones;
        const bool inside = (members >> me & 1u) != 0;
        // Longest step towards z before a component reaches zero.
        const bool low = inside && z < 0.0;
        const double ratio = low ? (c > 0.0 ? c / (c - z) : 0.0) : 2.0;
        const double step = -group_max<K>(-ratio);
        const unsigned lowest = group_ballot<K>(low && ratio == step);
        const bool blocked = lowest != 0;
        const int blocking = __ffs(static_cast<int>(lowest)) - 1;
        const double moved = inside ? (blocked ? fmax(c + step * (z - c), 0.0) : z) : c;
        const double value = blocked && me == blocking ? 0.0 : moved;
        // Optimal unless a component outside of the set would lower the objective.
        const double slope = right - multiplier - times<K>(matrix, value);
        const double best = group_max<K>(inside || me >= N ? -1e300 : slope);
        const unsigned winner = group_ballot<K>(!inside && me < N && slope == best && best > 1e-12 * scale);
        if (busy) {
            c = value;
            if (blocked) {
                members &= ~(1u << blocking);
                busy = blocking != added || step != 0.0;  // else the component was added because of rounding
                added = -1;
            } else if (winner != 0) {
                added = __ffs(static_cast<int>(winner)) - 1;
                members |= 1u << added;
            } else {
                busy = false;
            }
        }
    }
    return c;
}

// Sum over thread blocks in a fixed order: `parts` (blocks, size) -> `out` (size,).
extern "C" __global__ void add_blocks(const double* parts, int blocks, long long size, double* out) {
    const long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= size) return;
    double total[4] = {0.0, 0.0, 0.0, 0.0};
    int b = 0;
    for (; b + 4 <= blocks; b += 4)
        for (int j = 0; j < 4; ++j) total[j] += parts[(b + j) * size + i];  // four loads in flight at a time
    for (; b < blocks; ++b) total[0] += parts[b * size + i];
    out[i] = (total[0] + total[1]) + (total[2] + total[3]);
}

#endif
