/* fibre.cpp - runs a grid: blocks one after another, the threads of a block as fibres that take turns at barriers.
 *
 * A fibre is a stack and a saved stack pointer; switching costs a few nanoseconds. Those that may run stand in a queue: first
 * come, first served, or last come (the order reversed), or by lot (a seed). The thread that drains a stream starts the
 * first and gets control back when no fibre may run: then all are done, or the kernel hangs and is reported.
 */
#include "tests/plugins/cuda/emulator/fibre.h"

#include <algorithm>
#include <stdarg.h>
#include <sys/mman.h>

#if RD_EMULATED_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

enum { MOST_THREADS = 1024, GUARD = 4096 };
static const size_t stack_bytes = RD_EMULATED_ASAN ? 512 << 10 : 64 << 10;

rd_emulated_fibre *rd_emulated_now;
rd_emulated_place rd_emulated_at;
uint64_t rd_emulated_seed;

static struct {
    rd_emulated_fibre *fibre; /* [MOST_THREADS]; stacks up to `stacks` are mapped */
    int stacks;
    rd_emulated_warp warp[MOST_THREADS / 32];
    int threads, done, at_block;
    rd_emulated_site site; /* of the block barrier that some wait at */
    rd_emulated_fibre *ready[MOST_THREADS]; /* a ring, or a bag of the first `waiting` */
    int head, waiting;
    const char *kernel;
    rd_emulated_body body;
    const void *context;
    unsigned char *dynamic;
    size_t dynamic_bytes;
    uint64_t lot;
    rd_emulated_fibre main; /* who started the block */
    const void *main_stack; /* for the address sanitizer */
    size_t main_bytes;
} g;

/* ---- switching ---- */

#if defined(__x86_64__)
/* Saves what the callee must keep on the stack of `from`, and takes it from the stack of `to`. */
extern "C" RD_EMULATED_LOCAL void rd_emulated_switch(void **from, void *to);
asm(".text\n"
    ".p2align 4\n"
    ".globl rd_emulated_switch\n"
    ".hidden rd_emulated_switch\n"
    ".type rd_emulated_switch, @function\n"
    "rd_emulated_switch:\n"
    "    pushq %rbp\n"
    "    pushq %rbx\n"
    "    pushq %r12\n"
    "    pushq %r13\n"
    "    pushq %r14\n"
    "    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n"
    "    popq %r14\n"
    "    popq %r13\n"
    "    popq %r12\n"
    "    popq %rbx\n"
    "    popq %rbp\n"
    "    ret\n"
    ".size rd_emulated_switch, . - rd_emulated_switch\n");

static void begin_stack(rd_emulated_fibre *f, void (*entry)(void))
{
    /* Seven words that the switch takes off, then the stack as at the entry of a function: 8 below a multiple of 16. */
    void **top = reinterpret_cast<void **>(static_cast<char *>(f->stack) + stack_bytes) - 1;

    *--top = reinterpret_cast<void *>(entry);
    for (int i = 0; i < 6; i++) *--top = nullptr;
    f->sp = top;
}
#else
static void rd_emulated_switch(void **from, void *to)
{
    if (!*from) *from = new ucontext_t;
    swapcontext(static_cast<ucontext_t *>(*from), static_cast<ucontext_t *>(to));
}

static void begin_stack(rd_emulated_fibre *f, void (*entry)(void))
{
    ucontext_t *c = static_cast<ucontext_t *>(f->sp ? f->sp : new ucontext_t);

    getcontext(c);
    c->uc_stack.ss_sp = f->stack;
    c->uc_stack.ss_size = stack_bytes;
    c->uc_link = nullptr;
    makecontext(c, entry, 0);
    f->sp = c;
}
#endif

__attribute__((no_sanitize("address"))) static void switch_to(rd_emulated_fibre *to, bool last)
{
    rd_emulated_fibre *from = rd_emulated_now ? rd_emulated_now : &g.main;

    rd_emulated_now = to == &g.main ? nullptr : to;
    rd_emulated_at.thread = to->thread;
#if RD_EMULATED_ASAN
    __sanitizer_start_switch_fiber(last ? nullptr : &from->fake,
                                   to == &g.main ? g.main_stack : to->stack,
                                   to == &g.main ? g.main_bytes : stack_bytes);
#else
    (void)last;
#endif
    rd_emulated_switch(&from->sp, to->sp);
#if RD_EMULATED_ASAN
    __sanitizer_finish_switch_fiber(from->fake, nullptr, nullptr);
#endif
}

/* ---- who runs ---- */

static uint64_t draw(void)
{
    g.lot ^= g.lot << 13;
    g.lot ^= g.lot >> 7;
    g.lot ^= g.lot << 17;
    return g.lot;
}

void rd_emulated_make_ready(rd_emulated_fibre *f)
{
    f->state = FIBRE_READY;
    g.ready[(g.head + g.waiting++) % MOST_THREADS] = f;
}

static rd_emulated_fibre *next_ready(void)
{
    rd_emulated_fibre *f;

    if (!g.waiting) return &g.main;
    g.waiting--;
    if (rd_emulated_seed == 0) {
        f = g.ready[g.head];
        g.head = (g.head + 1) % MOST_THREADS;
        return f;
    }
    if (rd_emulated_seed > 1) {
        int other = (int)(draw() % (uint64_t)(g.waiting + 1));

        std::swap(g.ready[(g.head + other) % MOST_THREADS],
                  g.ready[(g.head + g.waiting) % MOST_THREADS]);
    }
    return g.ready[(g.head + g.waiting) % MOST_THREADS];
}

void rd_emulated_give_way(void)
{
    switch_to(next_ready(), false);
}

__attribute__((no_sanitize("address"))) static void fibre_entry(void)
{
#if RD_EMULATED_ASAN
    const void *bottom;
    size_t bytes;

    __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
    if (!g.main_stack) { /* the first fibre of a block comes from there */
        g.main_stack = bottom;
        g.main_bytes = bytes;
    }
#endif
    g.body(g.context);
    rd_emulated_now->state = FIBRE_DONE;
    g.done++;
    switch_to(next_ready(), true);
    __builtin_unreachable();
}

/* ---- what goes wrong ---- */

void rd_emulated_die(const char *format, ...)
{
    va_list args;
    const rd_emulated_place *p = &rd_emulated_at;

    fflush(stdout);
    fprintf(stderr, "emulator: kernel %s, block (%u, %u, %u)", g.kernel ? g.kernel : "(none)",
            p->block.x, p->block.y, p->block.z);
    if (rd_emulated_now)
        fprintf(stderr, ", thread (%u, %u, %u)", p->thread.x, p->thread.y, p->thread.z);
    fprintf(stderr, ": ");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    fflush(stderr);
    abort();
}

/* No fibre may run and not all are done: says who waits where. */
[[noreturn]] static void report_hang(void)
{
    fprintf(stderr, "emulator: kernel %s hangs: of %d threads %d left the kernel, %d wait at "
                    "__syncthreads\n", g.kernel, g.threads, g.done, g.at_block);
    for (int i = 0, lines = 0; i < g.threads && lines < 16; i++) {
        const rd_emulated_fibre *f = &g.fibre[i];
        const rd_emulated_fibre *last = i ? f - 1 : nullptr;

        if (last && last->state == f->state && last->site.line == f->site.line) continue;
        lines++;
        if (f->state == FIBRE_DONE) fprintf(stderr, "  from thread %d: left\n", i);
        else
            fprintf(stderr, "  from thread %d: waits at %s, %s:%d\n", i,
                    f->state == FIBRE_AT_BLOCK ? "__syncthreads"
                                               : rd_emulated_op_name(f->warp->op),
                    f->site.file, f->site.line);
    }
    rd_emulated_die("divergence: some threads wait for others that never come");
}

void rd_emulated_block_barrier(rd_emulated_site site)
{
    rd_emulated_fibre *f = rd_emulated_now;

    if (!f) rd_emulated_die("__syncthreads outside of a kernel");
    if (!g.at_block) g.site = site;
    else if (g.site.line != site.line || strcmp(g.site.file, site.file) != 0)
        rd_emulated_die("divergence: __syncthreads at %s:%d while others wait at %s:%d", site.file,
                        site.line, g.site.file, g.site.line);
    f->site = site;
    if (++g.at_block < g.threads) {
        f->state = FIBRE_AT_BLOCK;
        rd_emulated_give_way();
        return;
    }
    g.at_block = 0;
    for (int i = 0; i < g.threads; i++)
        if (&g.fibre[i] != f) rd_emulated_make_ready(&g.fibre[i]);
}

/* ---- memory of a block ---- */

/* Between these the linker puts what is __shared__. */
extern unsigned char __start_rd_shared[] __attribute__((weak, visibility("hidden")));
extern unsigned char __stop_rd_shared[] __attribute__((weak, visibility("hidden")));

__attribute__((no_sanitize("address"))) void rd_emulated_poison(void *at, size_t bytes)
{
    uint16_t *w = static_cast<uint16_t *>(at);

#if defined(__x86_64__)
    /* Not a store that the address sanitizer sees: between __shared__ arrays lie its red zones. */
    size_t n = bytes / 2;

    asm volatile("rep stosw" : "+D"(w), "+c"(n) : "a"((uint16_t)RD_EMULATED_POISON) : "memory");
#else
    for (size_t i = 0; i < bytes / 2; i++) *w++ = RD_EMULATED_POISON;
#endif
    if (bytes % 2) *reinterpret_cast<unsigned char *>(w) = RD_EMULATED_POISON & 255;
}

void *rd_emulated_dynamic(void)
{
    return g.dynamic;
}

bool rd_emulated_is_shared(const void *at, size_t bytes)
{
    const unsigned char *p = static_cast<const unsigned char *>(at);

    if (p >= __start_rd_shared && p < __stop_rd_shared)
        return bytes <= (size_t)(__stop_rd_shared - p);
    return p >= g.dynamic && p < g.dynamic + g.dynamic_bytes &&
           bytes <= (size_t)(g.dynamic + g.dynamic_bytes - p);
}

/* ---- grids ---- */

static void map_stacks(int threads)
{
    if (!g.fibre) g.fibre = new rd_emulated_fibre[MOST_THREADS]();
    for (; g.stacks < threads; g.stacks++) {
        void *at = mmap(nullptr, GUARD + stack_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        if (at == MAP_FAILED || mprotect(at, GUARD, PROT_NONE))
            rd_emulated_die("no stack for thread %d", g.stacks);
        g.fibre[g.stacks].stack = static_cast<char *>(at) + GUARD;
    }
}

static void set_threads(dim3 block)
{
    g.threads = (int)(block.x * block.y * block.z);
    map_stacks(g.threads);
    for (int i = 0; i < g.threads; i++) {
        rd_emulated_fibre *f = &g.fibre[i];
        unsigned n = (unsigned)i;

        f->thread = { n % block.x, n / block.x % block.y, n / block.x / block.y };
        f->index = i;
        f->lane = i % 32;
        f->warp = &g.warp[i / 32];
        f->warp->lane[f->lane] = f;
        f->warp->lanes = f->lane + 1;
    }
}

static void run_block(void)
{
    if (__start_rd_shared)
        rd_emulated_poison(__start_rd_shared, (size_t)(__stop_rd_shared - __start_rd_shared));
    if (g.dynamic) rd_emulated_poison(g.dynamic, g.dynamic_bytes);
    g.done = g.at_block = g.head = g.waiting = 0;
    for (int w = 0; w < (g.threads + 31) / 32; w++) g.warp[w].arrived = 0;
    for (int i = 0; i < g.threads; i++) {
        rd_emulated_fibre *f = &g.fibre[i];

        f->copies.clear();
        f->groups = 0;
        begin_stack(f, fibre_entry);
        rd_emulated_make_ready(f);
    }
    g.main_stack = nullptr;
    switch_to(next_ready(), false);
    if (g.done < g.threads) report_hang();
}

void rd_emulated_run_grid(const char *kernel, dim3 grid, dim3 block, size_t shared,
                          rd_emulated_body body, const void *context)
{
    enum { CANARY = 64 };
    uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;
    std::vector<uint32_t> order;

    if (rd_emulated_now) rd_emulated_die("a launch of %s inside of a kernel", kernel);
    g.kernel = kernel;
    g.body = body;
    g.context = context;
    g.dynamic = static_cast<unsigned char *>(malloc(shared + (RD_EMULATED_ASAN ? 1 : CANARY)));
    g.dynamic_bytes = shared;
    memset(g.dynamic + shared, 0xa5, RD_EMULATED_ASAN ? 1 : CANARY);
    g.lot = rd_emulated_seed * 0x9e3779b97f4a7c15u | 1;
    rd_emulated_at.threads = block;
    rd_emulated_at.blocks = grid;
    set_threads(block);
    if (rd_emulated_seed > 1) {
        for (uint64_t i = 0; i < blocks; i++) order.push_back((uint32_t)i);
        for (uint64_t i = blocks; i > 1; i--) std::swap(order[i - 1], order[draw() % i]);
    }
    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t b = rd_emulated_seed == 0 ? i : rd_emulated_seed == 1 ? blocks - 1 - i : order[i];

        rd_emulated_at.block = { (unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y),
                                 (unsigned)(b / grid.x / grid.y) };
        run_block();
        for (int j = 0; j < (RD_EMULATED_ASAN ? 1 : CANARY); j++)
            if (g.dynamic[shared + (size_t)j] != 0xa5)
                rd_emulated_die("byte %zu of dynamic shared memory was written, of %zu",
                                shared + (size_t)j, shared);
    }
    free(g.dynamic);
    g.dynamic = nullptr;
    g.dynamic_bytes = 0;
    g.kernel = nullptr;
}
