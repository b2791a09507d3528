/* place.c - the runtime folder and what stands in it.
 *
 * Everything is reached from the folder's open descriptor, sockets too (by /proc/self/fd): no name on the way can be
 * exchanged, and a long name of the folder does not matter.
 */
#include "lsp/place.h"

#include "core/base/clock.h"
#include "core/base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { STARTS_KEPT = 32, STARTS_WITHIN_S = 60, LOCK_STEP_MS = 5 };

struct rd_place {
    int dir, lock;
    char build[64], lock_name[80], socket_name[80];
    char folder[4096], socket[4200];
};

/* ---- the environment ---- */

static const struct {
    const char *name;
    bool
        is_path; /* a relative one would depend on the project that an editor happens to stand in */
    bool chooses; /* part of the daemon's name */
} kept[] = {
    { "HOME", true, true },
    { "USER", false, false },
    { "LOGNAME", false, false },
    { "LANG", false, false },
    { "LC_ALL", false, false },
    { "LC_CTYPE", false, false },
    { "TZ", false, false },
    { "TMPDIR", true, false },
    { "XDG_RUNTIME_DIR", true, false },
    { "XDG_CONFIG_HOME", true, true },
    { "XDG_CACHE_HOME", true, true },
    { "XDG_STATE_HOME", true, false },
    { "CUDA_VISIBLE_DEVICES", false, true },
    { "REDRAFT_MODEL", true, true },
    { "REDRAFT_BACKEND", false, true },
    { "REDRAFT_PLUGINS", true, true },
    { "REDRAFT_CACHE_DIR", true, true },
    { "REDRAFT_LOG", false, true },
};

enum { KEPT = sizeof kept / sizeof *kept };

extern char **environ;

/* Which entry of `kept` a variable is; KEPT for none of them. */
static size_t kept_index(const char *variable)
{
    size_t n = strcspn(variable, "="), i = 0;

    while (i < KEPT && (strlen(kept[i].name) != n || strncmp(kept[i].name, variable, n) != 0)) i++;
    return i < KEPT && kept[i].is_path && variable[n] && variable[n + 1] != '/' ? KEPT : i;
}

char **rd_place_environment(void)
{
    char **out = rd_alloc_array(KEPT + 1, sizeof *out);
    size_t n = 0;

    for (size_t i = 0; i < KEPT; i++)
        for (char **v = environ; v && *v; v++)
            if (kept_index(*v) == i) {
                out[n++] = *v;
                break;
            }
    return out;
}

/* ---- names ---- */

static uint64_t mix(uint64_t hash, const void *bytes, size_t n)
{
    const unsigned char *b = bytes;

    for (size_t i = 0; i < n; i++) hash = (hash ^ b[i]) * 0x100000001b3u;
    return hash;
}

static rd_status name_build(rd_place *p, rd_error *err)
{
    uint64_t hash = 0xcbf29ce484222325u;
    struct stat st;

    if (stat("/proc/self/exe", &st))
        return rd_fail(err, RD_IO, "/proc/self/exe: %s", strerror(errno));
    hash = mix(hash, &st.st_dev, sizeof st.st_dev);
    hash = mix(hash, &st.st_ino, sizeof st.st_ino);
    hash = mix(hash, &st.st_size, sizeof st.st_size);
    hash = mix(hash, &st.st_mtim.tv_sec, sizeof st.st_mtim.tv_sec);
    hash = mix(hash, &st.st_mtim.tv_nsec, sizeof st.st_mtim.tv_nsec);
    char **variables = rd_place_environment();

    for (char **v = variables; *v; v++)
        if (kept[kept_index(*v)].chooses) hash = mix(hash, *v, strlen(*v) + 1);
    free(variables);
    snprintf(p->build, sizeof p->build, "%s-%016llx", RD_VERSION, (unsigned long long)hash);
    snprintf(p->lock_name, sizeof p->lock_name, "%s.lock", p->build);
    snprintf(p->socket_name, sizeof p->socket_name, "%s.sock", p->build);
    snprintf(p->socket, sizeof p->socket, "%s/%s", p->folder, p->socket_name);
    return RD_OK;
}

const char *rd_place_build(const rd_place *p)
{
    return p->build;
}

const char *rd_place_socket(const rd_place *p)
{
    return p->socket;
}

/* ---- the folder ---- */

static rd_status open_folder(rd_place *p, rd_error *err)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    struct stat st;

    if (runtime && runtime[0] == '/' && strlen(runtime) < sizeof p->folder - 16)
        snprintf(p->folder, sizeof p->folder, "%s/redraft", runtime);
    else
        snprintf(p->folder, sizeof p->folder, "/tmp/redraft-%u", (unsigned)geteuid());
    if (mkdir(p->folder, 0700) && errno != EEXIST)
        return rd_fail(err, RD_IO, "%s: %s", p->folder, strerror(errno));
    p->dir = open(p->folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (p->dir < 0)
        return rd_fail(err, errno == ENOTDIR || errno == ELOOP ? RD_INVALID : RD_IO,
                       "%s: not a folder of our own (%s)", p->folder, strerror(errno));
    if (fstat(p->dir, &st)) return rd_fail(err, RD_IO, "%s: %s", p->folder, strerror(errno));
    if (st.st_uid != geteuid())
        return rd_fail(err, RD_INVALID, "%s belongs to another user", p->folder);
    if (st.st_mode & 077)
        return rd_fail(err, RD_INVALID, "%s is open to others; its mode must be 0700", p->folder);
    return RD_OK;
}

rd_status rd_place_open(rd_place **out, rd_error *err)
{
    rd_place *p = rd_alloc0(sizeof *p);

    p->dir = p->lock = -1;
    rd_status s = open_folder(p, err);

    if (!s) s = name_build(p, err);
    if (s)
        rd_place_close(p);
    else
        *out = p;
    return s;
}

void rd_place_close(rd_place *p)
{
    if (!p) return;
    if (p->lock >= 0) close(p->lock);
    if (p->dir >= 0) close(p->dir);
    free(p);
}

/* ---- locks ---- */

static void sleep_ms(int ms)
{
    nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000L }, NULL);
}

/* RD_STALE when it is held by another for all of that time. */
static rd_status take_lock(const rd_place *p, const char *name, int wait_ms, int *out,
                           rd_error *err)
{
    double until = rd_now_ms() + wait_ms;
    int fd = openat(p->dir, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0) return rd_fail(err, RD_IO, "%s/%s: %s", p->folder, name, strerror(errno));
    while (flock(fd, LOCK_EX | LOCK_NB)) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            rd_fail(err, RD_IO, "%s/%s: %s", p->folder, name, strerror(errno));
            close(fd);
            return RD_IO;
        }
        if (rd_now_ms() >= until) {
            close(fd);
            return rd_fail(err, RD_STALE, "%s/%s is held by another process", p->folder, name);
        }
        sleep_ms(LOCK_STEP_MS);
    }
    *out = fd;
    return RD_OK;
}

bool rd_place_wait_gone(rd_place *p, int wait_ms)
{
    int fd;

    if (take_lock(p, p->lock_name, wait_ms, &fd, NULL)) return false;
    close(fd);
    return true;
}

rd_status rd_place_lock_start(rd_place *p, int wait_ms, int *fd, rd_error *err)
{
    return take_lock(p, "start.lock", wait_ms, fd, err);
}

/* ---- starts ---- */

/* The times of the last minute's starts; a time that has not come yet is a clock that was set back, and not counted. */
static int read_starts(int fd, long long now, long long *times)
{
    char text[1024], *at = text, *end;
    ssize_t got = pread(fd, text, sizeof text - 1, 0);
    int n = 0;

    text[got > 0 ? got : 0] = 0;
    for (; n < STARTS_KEPT; at = end) {
        long long t = strtoll(at, &end, 10);

        if (end == at) break;
        if (t <= now && now - t < STARTS_WITHIN_S) times[n++] = t;
    }
    return n;
}

rd_status rd_place_count_start(rd_place *p, int most, rd_error *err)
{
    long long times[STARTS_KEPT + 1], now = (long long)time(NULL);
    int fd = openat(p->dir, "starts", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    char text[1024];
    size_t len = 0;

    if (fd < 0) return rd_fail(err, RD_IO, "%s/starts: %s", p->folder, strerror(errno));
    int n = read_starts(fd, now, times);

    if (n >= most) {
        close(fd);
        return rd_fail(err, RD_STALE, "the daemon was started %d times within a minute", n);
    }
    times[n++] = now;
    for (int i = n > STARTS_KEPT ? 1 : 0; i < n; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "%lld\n", times[i]);
    bool wrote = !ftruncate(fd, 0) && pwrite(fd, text, len, 0) == (ssize_t)len;

    close(fd);
    return wrote ? RD_OK : rd_fail(err, RD_IO, "%s/starts: %s", p->folder, strerror(errno));
}

/* ---- the socket ---- */

static struct sockaddr_un address_of(const rd_place *p, const char *name)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };

    snprintf(a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d/%s", p->dir, name);
    return a;
}

static struct sockaddr_un address(const rd_place *p)
{
    return address_of(p, p->socket_name);
}

bool rd_place_peer_is_ours(int fd)
{
    struct ucred peer;
    socklen_t n = sizeof peer;

    return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) && peer.uid == geteuid();
}

static int connect_to(const rd_place *p, const char *name)
{
    struct sockaddr_un a = address_of(p, name);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0) return -1;
    if (!connect(fd, (struct sockaddr *)&a, sizeof a) && rd_place_peer_is_ours(fd)) return fd;
    close(fd);
    return -1;
}

int rd_place_connect_all(rd_place *p, int *fds, int most)
{
    int n = 0, own = openat(p->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = own < 0 ? NULL : fdopendir(own);

    if (!dir && own >= 0) close(own);
    for (struct dirent *e; dir && n < most && (e = readdir(dir));) {
        size_t len = strlen(e->d_name);

        if (len < 5 || len >= sizeof p->socket_name || strcmp(e->d_name + len - 5, ".sock") != 0)
            continue;
        fds[n] = connect_to(p, e->d_name);
        n += fds[n] >= 0;
    }
    if (dir) closedir(dir);
    return n;
}

rd_status rd_place_connect(rd_place *p, int *out, rd_error *err)
{
    struct sockaddr_un a = address(p);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0) return rd_fail(err, RD_IO, "a socket: %s", strerror(errno));
    if (connect(fd, (struct sockaddr *)&a, sizeof a)) {
        rd_fail(err, RD_NOT_FOUND, "no daemon at %s (%s)", p->socket, strerror(errno));
        close(fd);
        return RD_NOT_FOUND;
    }
    if (!rd_place_peer_is_ours(fd)) {
        close(fd);
        return rd_fail(err, RD_INVALID, "%s is answered by another user", p->socket);
    }
    *out = fd;
    return RD_OK;
}

/* The lock's file holds the number of the process that has it, for as long as that process has not left in order. */
static long exchange_holder(int fd)
{
    char text[32];
    ssize_t got = pread(fd, text, sizeof text - 1, 0);

    text[got > 0 ? got : 0] = 0;
    long before = strtol(text, NULL, 10);
    int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());

    return !ftruncate(fd, 0) && pwrite(fd, text, (size_t)n, 0) == n ? before : 0;
}

rd_status rd_place_listen(rd_place *p, int wait_ms, int *out, long *died, rd_error *err)
{
    struct sockaddr_un a = address(p);
    int fd = -1;

    if (take_lock(p, p->lock_name, wait_ms, &p->lock, err)) return err->status;
    *died = exchange_holder(p->lock);
    if (unlinkat(p->dir, p->socket_name, 0) && errno != ENOENT) goto fail;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t before = umask(0177);
    bool bound = fd >= 0 && !bind(fd, (struct sockaddr *)&a, sizeof a);

    umask(before);
    if (!bound || listen(fd, 128)) goto fail;
    *out = fd;
    return RD_OK;
fail:
    rd_fail(err, RD_IO, "%s: %s", p->socket, strerror(errno));
    if (fd >= 0) close(fd);
    return RD_IO;
}

void rd_place_hide(rd_place *p)
{
    if (p->lock >= 0) unlinkat(p->dir, p->socket_name, 0);
}

void rd_place_leave(rd_place *p)
{
    if (p->lock < 0) return;
    rd_place_hide(p);
    if (ftruncate(p->lock, 0)) return; /* the next daemon takes us for dead, and no more */
}
