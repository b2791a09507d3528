/* folder.c - ignore files and project settings on the way from the root down to one folder. */
#include "lsp/folder.h"

#include "core/base/memory.h"
#include "lsp/limits.h"
#include "lsp/repair.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* No source that people write is as large; what is, was generated or is data, and its text would only take
 * memory, a copy for each reader and the model's time. */
#define MOST_BYTES ((size_t)4 << 20)
/* Of all files for one folder: a hostile project with one at each of its levels shall not hold up the loop. */
#define MOST_LOADED_BYTES ((size_t)256 << 10)

enum { MOST_TOLD = 200 };

static const char *const names[] = { ".gitignore", ".redraftignore", ".redraft.json" };
enum { GIT, OWN, PROJECT, NAMES };

rd_folder *rd_folder_new(const char *path, size_t n)
{
    rd_folder *f = rd_alloc0(sizeof *f);

    f->path = rd_copy_text(path, n);
    return f;
}

static void clear_rules(rd_folder *f)
{
    rd_rules_free(f->rules);
    free(f->refusal);
    f->rules = NULL;
    f->refusal = NULL;
}

void rd_folder_free(rd_folder *f)
{
    if (!f) return;
    clear_rules(f);
    rd_buf_clear(&f->stamps);
    free(f->path);
    free(f);
}

/* rd_fail makes a printable line of what a project's author named. */
void rd_ground_complain(rd_ground *g, const char *path, const char *text)
{
    rd_error line;

    rd_fail(&line, RD_INVALID, "%s%s%s", path, *path ? ": " : "", text);
    if (json_object_size(g->told) >= MOST_TOLD || json_object_get(g->told, line.text)) return;
    json_object_set_new(g->told, line.text, json_true());
    rd_buf_format(&g->complaints, "%s\n", line.text);
}

/* ---- the user's rules ---- */

static void add_language(rd_ground *g, rd_rules *r, const char *language, const json_t *entry)
{
    const json_t *quality = json_object_get(entry, "quality");
    const json_t *confidence = json_object_get(entry, "minConfidence");
    const json_t *most = json_object_get(entry, "maxMs");
    const json_t *debounce = json_object_get(entry, "debounceMs");
    const json_t *enable = json_is_boolean(entry) ? entry : json_object_get(entry, "enable");
    bool enabled = json_is_true(enable);
    double q = json_number_value(quality), c = json_number_value(confidence);
    int m = (int)json_number_value(most), d = (int)json_number_value(debounce);
    rd_file_setting s = { .language = language,
                          .enabled = enable ? &enabled : NULL,
                          .quality = quality ? &q : NULL,
                          .min_confidence = confidence ? &c : NULL,
                          .max_ms = most ? &m : NULL,
                          .debounce_ms = debounce ? &d : NULL };
    rd_error err;

    if (rd_rules_setting(r, RD_LAYER_USER, &s, &err)) rd_ground_complain(g, "languages", err.text);
}

static void add_patterns(rd_ground *g, rd_rules *r, rd_layer layer, const char *root,
                         const json_t *list)
{
    const json_t *one;
    rd_error err;
    size_t i;

    json_array_foreach(list, i,
                       one) if (rd_rules_pattern(r, layer, root, json_string_value(one), &err))
        rd_ground_complain(g, "exclude", err.text);
}

rd_rules *rd_ground_rules(rd_ground *g)
{
    rd_rules *r = rd_rules_new(MOST_BYTES);
    const char *language;
    json_t *entry;

    add_patterns(g, r, RD_LAYER_USER, "/", g->user->exclude);
    json_object_foreach(g->user->languages, language, entry) add_language(g, r, language, entry);
    return r;
}

/* ---- the way from the root to the folder ---- */

static bool is_below(const char *path, const char *root)
{
    size_t n = strlen(root);

    return !strncmp(path, root, n) && (path[n] == '/' || path[n] == 0);
}

static void join(rd_buf *out, const char *folder, size_t n, const char *name)
{
    rd_buf_reset(out);
    rd_buf_append(out, folder, n);
    rd_buf_format(out, "/%s", name);
}

/* The end of the folder above path[0, n). */
static size_t above(const char *path, size_t n)
{
    while (n > 0 && path[--n] != '/') {
    }
    return n;
}

/* How much of the folder's path is its root: the outermost workspace folder that it is in, else the next one up that
 * holds .git, else all of it. */
static size_t root_of(const rd_folder *f, const rd_ground *g)
{
    size_t n = strlen(f->path), best = SIZE_MAX;
    rd_buf git = { 0 };
    struct stat st;

    for (int i = 0; i < g->n_roots; i++)
        if (is_below(f->path, g->roots[i]) && strlen(g->roots[i]) < best)
            best = strlen(g->roots[i]);
    for (size_t at = n; best == SIZE_MAX; at = above(f->path, at)) {
        join(&git, f->path, at, ".git");
        if (!lstat(git.data, &st)) best = at;
        if (at == 0) break;
    }
    rd_buf_clear(&git);
    return best == SIZE_MAX ? n : best;
}

/* The next folder on the way down; false behind the last. */
static bool next_level(const char *path, size_t *n)
{
    if (path[*n] == 0) return false;
    (*n)++;
    while (path[*n] && path[*n] != '/') (*n)++;
    return true;
}

typedef struct stamp {
    uint64_t device, inode, mode;
    int64_t bytes, modified_ns, changed_ns;
} stamp;

static int64_t ns_of(struct timespec t)
{
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Zeros where nothing is. */
static stamp stamp_of(const char *path)
{
    struct stat st;

    if (lstat(path, &st)) return (stamp){ 0 };
    return (stamp){ st.st_dev,  st.st_ino,         st.st_mode,
                    st.st_size, ns_of(st.st_mtim), ns_of(st.st_ctim) };
}

/* Whether a file changed within the last second: a second change in the same tick of the clock may leave the stamp as it is. */
static bool is_fresh(const stamp *s)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    int64_t age = ns_of(now) - s->changed_ns;

    return s->inode && age > -1000000000 && age < 1000000000;
}

/* The root's length and the stamps of all files on the way. */
static bool scan(const rd_folder *f, size_t root, rd_buf *out)
{
    bool fresh = false;
    rd_buf path = { 0 };
    size_t n = root;

    rd_buf_append(out, &root, sizeof root);
    do {
        for (int k = 0; k < NAMES; k++) {
            join(&path, f->path, n, names[k]);
            stamp s = stamp_of(path.data);

            fresh = fresh || is_fresh(&s);
            rd_buf_append(out, &s, sizeof s);
        }
    } while (next_level(f->path, &n));
    rd_buf_clear(&path);
    return fresh;
}

/* ---- reading ---- */

typedef enum found { NOTHING, NOT_A_FILE, UNREADABLE, READ } found;

static found read_all(int fd, size_t most, rd_buf *out)
{
    char chunk[16384];
    struct stat st;

    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) return NOT_A_FILE;
    for (;;) {
        ssize_t n = read(fd, chunk, sizeof chunk);

        if (n < 0 && errno == EINTR) continue;
        if (n < 0 || (size_t)n > most - out->len) return UNREADABLE;
        if (n == 0) return READ;
        rd_buf_append(out, chunk, (size_t)n);
    }
}

/* Links are not followed, and a pipe is not waited for. */
static found read_file(const char *path, size_t most, rd_buf *out)
{
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);

    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) return NOTHING;
    if (fd < 0) return errno == ELOOP || errno == ENXIO ? NOT_A_FILE : UNREADABLE;
    found what = read_all(fd, most, out);

    close(fd);
    return what;
}

static void refuse(rd_folder *f, rd_ground *g, const char *path, const char *why)
{
    rd_error line;

    rd_fail(&line, RD_INVALID, "%s: %s; nothing below is read", path, why);
    rd_ground_complain(g, "", line.text);
    if (!f->refusal) f->refusal = rd_copy_text(line.text, strlen(line.text));
}

/* Merged over what allows everything, so that what is left is what the project takes away. */
static void add_project(rd_folder *f, rd_ground *g, const char *folder, const char *path,
                        const json_t *json)
{
    rd_settings s = { .enable = true, .cache = true, .max_ms = INT_MAX, .exclude = json_array() };
    rd_buf complaints = { 0 };
    rd_error err;
    bool uncached = true;

    rd_settings_merge(&s, RD_FROM_PROJECT, json, NULL, &complaints);
    rd_file_setting set = { .root = folder,
                            .enabled = s.enable ? NULL : &s.enable,
                            .uncached = s.cache ? NULL : &uncached,
                            .min_confidence = s.min_confidence > 0 ? &s.min_confidence : NULL,
                            .max_ms = s.max_ms < INT_MAX ? &s.max_ms : NULL,
                            .debounce_ms = s.debounce_ms > 0 ? &s.debounce_ms : NULL };

    add_patterns(g, f->rules, RD_LAYER_PROJECT, folder, s.exclude);
    if (rd_rules_setting(f->rules, RD_LAYER_PROJECT, &set, &err)) refuse(f, g, path, err.text);
    for (char *line = complaints.data, *rest; line && *line; line = rest) {
        rest = line + strcspn(line, "\n");
        *rest++ = 0;
        rd_ground_complain(g, path, line);
    }
    rd_buf_clear(&complaints);
    rd_settings_clear(&s);
}

static void add_file(rd_folder *f, rd_ground *g, int kind, const char *folder, const char *path,
                     const rd_buf *bytes)
{
    json_t *json = NULL;
    rd_error err;

    if (kind != PROJECT) {
        if (rd_rules_ignore_file(f->rules, folder, bytes->data, bytes->len, &err))
            rd_ground_complain(g, path, err.text);
    } else if (rd_repair_parse(bytes->data, bytes->len, RD_UTF8, &json, &err)) {
        refuse(f, g, path, err.text);
    } else {
        add_project(f, g, folder, path, json);
    }
    json_decref(json);
}

/* git takes no link, folder or pipe for a .gitignore, so it holds no rules; the other two names are ours alone, and
 * whoever put them there meant something. */
static void load_file(rd_folder *f, rd_ground *g, int kind, size_t level, size_t *left)
{
    size_t most = *left < RD_MOST_SETTINGS_BYTES ? *left : RD_MOST_SETTINGS_BYTES;
    char *folder = rd_copy_text(f->path, level);
    rd_buf path = { 0 }, bytes = { 0 };

    join(&path, folder, level, names[kind]);
    rd_buf_append(&bytes, "", 0);
    switch (read_file(path.data, most, &bytes)) {
    case READ: add_file(f, g, kind, folder, path.data, &bytes); break;
    case UNREADABLE: refuse(f, g, path.data, "cannot be read, or is too large"); break;
    case NOT_A_FILE:
        if (kind == GIT)
            rd_ground_complain(g, path.data, "not a regular file, and not read");
        else
            refuse(f, g, path.data, "not a regular file");
        break;
    case NOTHING: break;
    }
    *left -= bytes.len;
    rd_buf_clear(&bytes);
    rd_buf_clear(&path);
    free(folder);
}

static void load(rd_folder *f, rd_ground *g, size_t root)
{
    size_t n = root, left = MOST_LOADED_BYTES;

    clear_rules(f);
    f->rules = rd_ground_rules(g);
    f->serial = ++g->serial;
    do {
        for (int k = 0; k < NAMES; k++) load_file(f, g, k, n, &left);
    } while (next_level(f->path, &n));
}

void rd_folder_look(rd_folder *f, rd_ground *g, double now_ms)
{
    rd_buf stamps = { 0 };
    bool fresh;

    if (f->serial && now_ms - f->looked_ms < RD_LOOK_MS) return;
    size_t root = root_of(f, g);

    fresh = scan(f, root, &stamps);
    bool same = f->serial && !f->is_fresh && stamps.len == f->stamps.len &&
                !memcmp(stamps.data, f->stamps.data, stamps.len);

    rd_buf_clear(&f->stamps);
    f->stamps = stamps;
    f->looked_ms = now_ms;
    if (!same) load(f, g, root);
    f->is_fresh = fresh || f->refusal; /* what could not be read is tried again */
}
