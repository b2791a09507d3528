/* ceilings.c - loops that do nothing but read, or nothing but multiply, on all threads at once.
 *
 * Each round starts at a barrier and counts from the first thread's start to the last one's end; the best
 * round is the ceiling. The read buffers are far above any cache. The products run in registers on
 * independent sums, enough of them to hide the instruction's latency.
 */
#include "plugins/cpu/ceilings.h"

#include "core/base/clock.h"
#include "core/base/memory.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

enum { ROUNDS = 9, THREADS_MOST = 256, SUMS = 12 };
enum { READ_MOST = 512 << 20, READ_LEAST = 64 << 20 };

/* A measured loop: `run` does `steps` steps of `work` units each. What it returns is only there to be kept. */
typedef struct loop {
    uint64_t (*run)(const void *buffer, size_t steps);
    size_t steps;
    double work;
} loop;

typedef uint64_t v8 __attribute__((vector_size(64)));

static uint64_t read_all(const void *buffer, size_t steps)
{
    const v8 *p = buffer;
    v8 a = { 0 }, b = { 0 };

    for (size_t i = 0; i < steps; i++, p += 2) {
        a += p[0];
        b += p[1];
    }
    a += b;
    return a[0] + a[1] + a[2] + a[3] + a[4] + a[5] + a[6] + a[7];
}

/* The loops multiply zeros: the time does not depend on the numbers. The empty asm keeps the compiler from
 * seeing that. */
static uint64_t int8_plain(const void *buffer, size_t steps)
{
    int32_t sum[16] = { 0 };
    int8_t a[16] = { 0 };

    (void)buffer;
    for (size_t s = 0; s < steps; s++) {
        __asm__("" : "+m"(a));
        for (int i = 0; i < 16; i++) sum[i] += a[i] * a[15 - i];
    }
    for (int i = 1; i < 16; i++) sum[0] += sum[i];
    return (uint64_t)sum[0];
}

static uint64_t float_plain(const void *buffer, size_t steps)
{
    float sum[16] = { 0 }, a = 0.0f;

    (void)buffer;
    for (size_t s = 0; s < steps; s++) {
        __asm__("" : "+m"(a));
        for (int i = 0; i < 16; i++) sum[i] += a * a;
    }
    for (int i = 1; i < 16; i++) sum[0] += sum[i];
    return (uint64_t)sum[0];
}

#if defined(__x86_64__)
/* SUMS independent sums in registers of type `vector`; `step` makes the next of sum[i] from a and b. */
#define PRODUCTS(name, isa, vector, zero, step)                                         \
    __attribute__((target(isa))) static uint64_t name(const void *buffer, size_t steps) \
    {                                                                                   \
        vector sum[SUMS], a = zero, b = zero;                                           \
                                                                                        \
        (void)buffer;                                                                   \
        __asm__("" : "+x"(b));                                                          \
        for (int i = 0; i < SUMS; i++) sum[i] = zero;                                   \
        for (size_t s = 0; s < steps; s++) {                                            \
            _Pragma("GCC unroll 12") for (int i = 0; i < SUMS; i++)                     \
            {                                                                           \
                __asm__("" : "+x"(a));                                                  \
                sum[i] = step;                                                          \
            }                                                                           \
        }                                                                               \
        for (int i = 0; i < SUMS; i++) __asm__ volatile("" ::"x"(sum[i]));              \
        return 0;                                                                       \
    }

PRODUCTS(int8_vnni512, "avx512f,avx512bw,avx512vnni", __m512i, _mm512_setzero_si512(),
         _mm512_dpbusd_epi32(sum[i], a, b))
PRODUCTS(int8_vnni256, "avx2,avxvnni", __m256i, _mm256_setzero_si256(),
         _mm256_dpbusd_avx_epi32(sum[i], a, b))
PRODUCTS(int8_avx2, "avx2", __m256i, _mm256_setzero_si256(),
         _mm256_add_epi32(sum[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), b)))
PRODUCTS(bf16_avx512, "avx512f,avx512bf16", __m512, _mm512_setzero_ps(),
         _mm512_dpbf16_ps(sum[i], (__m512bh)a, (__m512bh)b))
PRODUCTS(float_avx512, "avx512f", __m512, _mm512_setzero_ps(), _mm512_fmadd_ps(a, b, sum[i]))
PRODUCTS(float_avx2, "avx2,fma", __m256, _mm256_setzero_ps(), _mm256_fmadd_ps(a, b, sum[i]))

/* CPUID leaf 7, 1: EAX bit 4. Not every compiler's __builtin_cpu_supports knows the name; that avx2 is
 * usable, and so the system saves its registers, the caller has asked already. */
static bool has_avx_vnni(void)
{
    unsigned a = 0, b = 0, c = 0, d = 0;

    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
#endif

static loop int8_loop(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni"))
        return (loop){ int8_vnni512, 1 << 20, SUMS * 128.0 };
    if (__builtin_cpu_supports("avx2") && has_avx_vnni())
        return (loop){ int8_vnni256, 1 << 20, SUMS * 64.0 };
    if (__builtin_cpu_supports("avx2")) return (loop){ int8_avx2, 1 << 20, SUMS * 64.0 };
#endif
    return (loop){ int8_plain, 1 << 20, 32.0 };
}

static loop bf16_loop(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512bf16")) return (loop){ bf16_avx512, 1 << 20, SUMS * 64.0 };
    if (__builtin_cpu_supports("avx512f")) return (loop){ float_avx512, 1 << 20, SUMS * 32.0 };
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return (loop){ float_avx2, 1 << 20, SUMS * 16.0 };
#endif
    return (loop){ float_plain, 1 << 20, 32.0 };
}

/* ---- the threads ---- */

enum { READ, INT8, BF16, LOOPS };

typedef struct shared {
    loop loops[LOOPS];
    size_t buffer_bytes;
    int threads;
    pthread_mutex_t making; /* held until the number of threads is known */
    pthread_barrier_t gate;
    double start[THREADS_MOST], end[THREADS_MOST], best[LOOPS];
    uint64_t kept[THREADS_MOST];
} shared;

typedef struct member {
    shared *all;
    int number;
    void *buffer;
} member;

/* Work a second of the round that is over. */
static double rate(const shared *a, const loop *l)
{
    double start = a->start[0], end = a->end[0];

    for (int i = 1; i < a->threads; i++) {
        if (a->start[i] < start) start = a->start[i];
        if (a->end[i] > end) end = a->end[i];
    }
    return end > start ? l->work * (double)l->steps * a->threads / (end - start) * 1e3 : 0.0;
}

static void *run_loops(void *arg)
{
    member *m = arg;
    shared *a = m->all;

    pthread_mutex_lock(&a->making);
    pthread_mutex_unlock(&a->making);
    memset(m->buffer, 1, a->buffer_bytes); /* by the thread that reads it: its own memory node */
    for (int r = 0; r < ROUNDS; r++) {     /* one after the other: a disturbance meets all alike */
        for (int l = 0; l < LOOPS; l++) {
            pthread_barrier_wait(&a->gate);
            a->start[m->number] = rd_now_ms();
            a->kept[m->number] += a->loops[l].run(m->buffer, a->loops[l].steps);
            a->end[m->number] = rd_now_ms();
            pthread_barrier_wait(&a->gate);
            if (m->number) continue;
            double now = rate(a, &a->loops[l]);

            if (now > a->best[l]) a->best[l] = now;
        }
    }
    return NULL;
}

/* A quarter of what is free at most, so that measuring never takes the machine's memory. */
static size_t buffer_size(int threads)
{
    size_t each = rd_memory_free() / 4 / (size_t)threads, page = 2 << 20;

    if (each > READ_MOST) each = READ_MOST;
    if (each < READ_LEAST) each = READ_LEAST;
    return each / page * page;
}

/* The last cache that one core shares. The C library would give the whole package's. */
static double last_cache(void)
{
    char path[64];
    double bytes = 0.0;

    for (int i = 3; i > 0 && bytes <= 0.0; i--) {
        char size[32];

        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
        FILE *f = fopen(path, "re");

        if (f && fgets(size, sizeof size, f)) bytes = 1024.0 * (double)strtoul(size, NULL, 10);
        if (f) fclose(f);
    }
    return bytes;
}

rd_status rd_cpu_ceilings(const rd_device_options *o, rd_ceilings *out, rd_error *err)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int threads = o->threads > 0 ? o->threads : cores > 0 ? (int)cores : 1, n = 0;
    shared *a = rd_alloc0(sizeof *a);
    member m[THREADS_MOST] = { 0 };
    pthread_t id[THREADS_MOST];
    rd_status status = RD_OK;

    if (threads > THREADS_MOST) threads = THREADS_MOST;
    a->threads = threads;
    a->buffer_bytes = buffer_size(threads);
    a->loops[READ] = (loop){ read_all, a->buffer_bytes / (2 * sizeof(v8)), 2 * sizeof(v8) };
    a->loops[INT8] = int8_loop();
    a->loops[BF16] = bf16_loop();
    for (int i = 0; i < threads; i++) {
        m[i] = (member){ a, i, rd_try_alloc(a->buffer_bytes) };
        if (!m[i].buffer) {
            status = rd_fail(err, RD_NO_MEMORY, "no memory to measure reads: %zu MB",
                             a->buffer_bytes * (size_t)threads >> 20);
            goto out;
        }
        madvise(m[i].buffer, a->buffer_bytes, MADV_HUGEPAGE);
    }
    pthread_mutex_init(&a->making, NULL);
    pthread_mutex_lock(&a->making);
    while (n < threads && !pthread_create(&id[n], NULL, run_loops, &m[n])) n++;
    a->threads = n; /* what could not be made is not waited for */
    if (n) pthread_barrier_init(&a->gate, NULL, (unsigned)n);
    pthread_mutex_unlock(&a->making);
    for (int i = 0; i < n; i++) pthread_join(id[i], NULL);
    if (n) pthread_barrier_destroy(&a->gate);
    pthread_mutex_destroy(&a->making);
    *out = (rd_ceilings){ .read_bytes_s = a->best[READ],
                          .cache_bytes = last_cache(),
                          .int8_op_s = a->best[INT8],
                          .bf16_flop_s = a->best[BF16] };
out:
    for (int i = 0; i < threads; i++) free(m[i].buffer);
    free(a);
    return status;
}
