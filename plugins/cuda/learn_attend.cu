/* learn_attend.cu - attention forward: 64 rows of one head a block, 16 a warp, over the tiles of 64 keys that some row sees.
 *
 * The list of tiles comes with the pack; most tiles are seen whole and need no mask. Scores stay in registers with a running
 * maximum and sum; what backward needs of them is a row's log-sum (base 2, of the scaled scores). Keys and values of the next
 * tile are on their way while this one is worked on.
 */
#include "plugins/cuda/learn_attend.cuh"

template <int DIM>
static __global__ void __launch_bounds__(ATTEND_THREADS) attend(learn_attend_args a)
{
    enum { TILE = LEARN_TILE * DIM, HELD = DIM <= 64, HALVES = HELD ? 2 : 1 };
    RD_DYNAMIC_SHARED(bf16, room);
    bf16 *q = room;
    int lane = (int)threadIdx.x % GPU_WARP, warp = (int)threadIdx.x / GPU_WARP, t = lane % 4;
    int first = (int)blockIdx.x * LEARN_TILE, h = (int)blockIdx.y;
    int row = first + warp * 16 + lane / 4;
    learn_attend_walk walk = walk_of<DIM>(a, room + TILE, room + 3 * TILE);
    learn_attend_sight sight[2] = { sight_of(&a, row), sight_of(&a, row + 8) };
    uint32_t held[HELD ? DIM / 16 : 1][4];
    float o[DIM / 8][4], top[2] = { -INFINITY, -INFINITY }, sum[2] = { 0.0f, 0.0f };
    float by = a.scale * ATTEND_LOG2E;

#pragma unroll
    for (int i = 0; i < DIM / 8; i++) o[i][0] = o[i][1] = o[i][2] = o[i][3] = 0.0f;
    load_rows<DIM>(q, a.qk + h * DIM, (a.heads + a.kv) * DIM, first, a.rows);
    walk_send<DIM>(walk, walk.begin);
    for (int i = walk.begin; i < walk.end; i++) {
        int entry = a.list[i];
        const bf16 *k, *v;

        walk_to<DIM>(walk, i, &k, &v);
        if (HELD && i == walk.begin) {
#pragma unroll
            for (int s = 0; s < (HELD ? DIM / 16 : 1); s++)
                tile_a<DIM / 8>(held[s], q, warp * 16, 2 * s);
        }
#pragma unroll HALVES
        for (int half = 0; half < 2; half++) {
            float s[4][4] = {}, most[2] = { -INFINITY, -INFINITY };
            int key = (entry & ~LEARN_PARTLY) * LEARN_TILE + half * 32 + 2 * t;

            dot_rows<DIM, HELD>(s, held, q, warp * 16, k, half * 32);
            if (entry & LEARN_PARTLY) {
#pragma unroll
                for (int n = 0; n < 4; n++) {
#pragma unroll
                    for (int c = 0; c < 4; c++)
                        if (!sight_has(sight[c / 2], key + 8 * n + c % 2)) s[n][c] = -INFINITY;
                }
            }
#pragma unroll
            for (int n = 0; n < 4; n++) {
#pragma unroll
                for (int c = 0; c < 4; c++) most[c / 2] = fmaxf(most[c / 2], s[n][c]);
            }
#pragma unroll
            for (int r = 0; r < 2; r++) {
                most[r] = fmaxf(most[r], __shfl_xor_sync(GPU_ALL, most[r], 1));
                most[r] = fmaxf(most[r], __shfl_xor_sync(GPU_ALL, most[r], 2));
                most[r] = fmaxf(top[r], most[r] * by);
                float base = most[r] == -INFINITY ? 0.0f : most[r]; /* nothing seen so far */
                float less = gpu_exp2(top[r] - base);

                top[r] = most[r];
                most[r] = base;
                sum[r] *= less;
#pragma unroll
                for (int d = 0; d < DIM / 8; d++) {
                    o[d][2 * r] *= less;
                    o[d][2 * r + 1] *= less;
                }
            }
#pragma unroll
            for (int n = 0; n < 4; n++) {
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    s[n][c] = gpu_exp2(s[n][c] * by - most[c / 2]);
                    sum[c / 2] += s[n][c];
                }
            }
            add_rows<DIM>(o, s, v, half * 32);
        }
        __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        sum[r] += __shfl_xor_sync(GPU_ALL, sum[r], 1);
        sum[r] += __shfl_xor_sync(GPU_ALL, sum[r], 2);
        int at = row + 8 * r;

        if (at >= a.rows) continue;
        float one = 1.0f / sum[r];

        if (t == 0)
            a.lse[(size_t)h * (size_t)a.rows + (size_t)at] = top[r] + logf(sum[r]) * ATTEND_LOG2E;
#pragma unroll
        for (int d = 0; d < DIM / 8; d++)
            *(uint32_t *)(a.o + ((size_t)at * (size_t)a.heads + (size_t)h) * DIM + 8 * d + 2 * t) =
                gpu_bf16x2(o[d][2 * r] * one, o[d][2 * r + 1] * one);
    }
}

template <int DIM> static size_t shared_bytes(void)
{
    return 5 * (size_t)LEARN_TILE * DIM * sizeof(bf16);
}

void learn_attend_allow(rd_learner *l)
{
    learn_check(l, RD_ALLOW_SHARED(attend<32>, shared_bytes<32>()), "attention");
    learn_check(l, RD_ALLOW_SHARED(attend<64>, shared_bytes<64>()), "attention");
    learn_check(l, RD_ALLOW_SHARED(attend<128>, shared_bytes<128>()), "attention");
}

void learn_attend(rd_learner *l, const learn_layer *y, const learn_pack *p)
{
    learn_attend_args a = {};
    dim3 grid((unsigned)p->tiles, (unsigned)l->heads);

    a.qk = y->qk;
    a.qkv = y->qkv;
    a.o = y->o;
    a.lse = y->lse;
    a.row = p->row;
    a.start = p->see_start;
    a.list = p->see;
    a.rows = p->rows;
    a.heads = l->heads;
    a.kv = l->kv;
    a.scale = 1.0f / sqrtf((float)l->dim);
    if (l->dim == 32)
        RD_LAUNCH(attend<32>, grid, ATTEND_THREADS, shared_bytes<32>(), l->stream, a);
    else if (l->dim == 64)
        RD_LAUNCH(attend<64>, grid, ATTEND_THREADS, shared_bytes<64>(), l->stream, a);
    else
        RD_LAUNCH(attend<128>, grid, ATTEND_THREADS, shared_bytes<128>(), l->stream, a);
    learn_launched(l, "attention");
}
