/* plugin.c - the folders, the shared objects loaded from them, and what a table must have. */
#include "core/plugin.h"

#include "core/base/buf.h"
#include "core/base/memory.h"
#include "core/plugin_file.h"

#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FOLDERS_MOST = 12, ROWS_MOST = 64 };

#define PREFIX "libredraft-"
#define SUFFIX ".so"

typedef struct plugin {
    struct plugin *next;
    char *name;
    void *handle;
    rd_backend table; /* a copy: zero beyond what the plugin knows */
} plugin;

typedef struct folder {
    struct folder *next;
    char *path;
} folder;

/* What the process has loaded is a fact of the process, as its log is. Entries are never freed. */
static struct {
    pthread_mutex_t mutex;
    plugin *loaded;
    folder *users; /* the last named first */
} plugins = { .mutex = PTHREAD_MUTEX_INITIALIZER };

/* ---- folders ---- */

typedef struct folder_list {
    char *path[FOLDERS_MOST];
    int n;
} folder_list;

static void add_folder(folder_list *l, const char *dir, size_t dir_bytes, const char *below)
{
    rd_buf text = { 0 };

    if (l->n == FOLDERS_MOST || dir_bytes == 0 || *dir != '/') return;
    rd_buf_append(&text, dir, dir_bytes);
    rd_buf_text(&text, below);
    l->path[l->n++] = text.data;
}

static void clear_folders(folder_list *l)
{
    while (l->n > 0) free(l->path[--l->n]);
}

/* Of the shared library that this code is in; nothing where it is linked into a program, whose name for itself is whatever its
 * caller says. */
static void add_beside_library(folder_list *l)
{
    static const char marker;
    Dl_info info;

    if (!dladdr(&marker, &info) || !info.dli_fname) return;
    const char *slash = strrchr(info.dli_fname, '/');

    if (slash && !strncmp(slash + 1, "libredraft.so", 13))
        add_folder(l, info.dli_fname, (size_t)(slash - info.dli_fname), "/redraft");
}

static void add_beside_program(folder_list *l)
{
    char program[2048];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);

    program[n > 0 ? n : 0] = 0;
    const char *slash = strrchr(program, '/');

    if (slash) add_folder(l, program, (size_t)(slash - program), "/../" RD_PLUGINS_LIBDIR);
}

/* The mutex is held. */
static void find_folders(folder_list *l)
{
    l->n = 0;
    for (const folder *f = plugins.users; f; f = f->next)
        add_folder(l, f->path, strlen(f->path), "");
    add_beside_library(l);
    add_beside_program(l);
    add_folder(l, RD_PLUGINS_BUILT, strlen(RD_PLUGINS_BUILT), "");
    add_folder(l, RD_PLUGINS_INSTALLED, strlen(RD_PLUGINS_INSTALLED), "");
}

static void remember_folder(const char *path)
{
    folder **at = &plugins.users, *f;
    int n = 0;

    while (*at && strcmp((*at)->path, path) != 0) at = &(*at)->next, n++;
    f = *at;
    if (!f && n == FOLDERS_MOST / 2) return;
    if (f) {
        *at = f->next;
    } else {
        f = rd_alloc0(sizeof *f);
        f->path = rd_copy_text(path, strlen(path));
    }
    f->next = plugins.users;
    plugins.users = f;
}

rd_status rd_plugins_look(const char *path, rd_error *err)
{
    struct stat st;

    if (*path != '/')
        return rd_fail(err, RD_INVALID, "%s: a folder of plugins has an absolute path", path);
    if (stat(path, &st) || !S_ISDIR(st.st_mode))
        return rd_fail(err, RD_NOT_FOUND, "%s: there is no such folder of plugins", path);
    pthread_mutex_lock(&plugins.mutex);
    remember_folder(path);
    pthread_mutex_unlock(&plugins.mutex);
    return RD_OK;
}

/* ---- names ---- */

static bool is_name(const char *name, size_t n)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";

    return n > 0 && n < RD_PLUGIN_NAME_BYTES && strspn(name, letters) >= n;
}

/* The name in "libredraft-NAME.so". */
static bool name_of_file(const char *file, char name[RD_PLUGIN_NAME_BYTES])
{
    size_t n = strlen(file), before = strlen(PREFIX), behind = strlen(SUFFIX);

    if (n <= before + behind || strncmp(file, PREFIX, before) != 0 ||
        strcmp(file + n - behind, SUFFIX) != 0 || !is_name(file + before, n - before - behind))
        return false;
    snprintf(name, RD_PLUGIN_NAME_BYTES, "%.*s", (int)(n - before - behind), file + before);
    return true;
}

bool rd_backend_is_auto(const char *name)
{
    return !name || !strcmp(name, "auto");
}

const char *rd_backend_for_isa(const char *name, const char *isa)
{
    return isa && rd_backend_is_auto(name) ? "cpu" : name;
}

/* ---- the table ---- */

/* The fields of the first version, all but `gemm` needed. */
enum { FIRST_BYTES = offsetof(rd_backend, ceilings) };

#define VERB(verb)                         \
    {                                      \
        offsetof(rd_backend, verb), #verb, \
    }

static const struct {
    size_t at;
    const char *name;
} verbs[] = { VERB(open),     VERB(close),
              VERB(describe), VERB(take),
              VERB(drop),     VERB(alloc),
              VERB(release),  VERB(upload),
              VERB(download), VERB(kv_open),
              VERB(kv_close), VERB(kv_read),
              VERB(kv_write), VERB(kv_block_bytes),
              VERB(begin),    VERB(end),
              VERB(embed),    VERB(norm),
              VERB(linear),   VERB(attention),
              VERB(mlp),      VERB(moe),
              VERB(add),      VERB(pick) };

/* Nothing behind `abi` is read when it is another one, nor behind `size` ever. */
static rd_status check_table(const char *name, const rd_backend *t, rd_backend *out, rd_error *err)
{
    if (!t) return rd_fail(err, RD_INVALID, "its entry gives no table");
    if (t->abi != RD_BACKEND_ABI)
        return rd_fail(err, RD_INVALID, "it was built for interface %u, this program has %u",
                       (unsigned)t->abi, (unsigned)RD_BACKEND_ABI);
    if (t->size < FIRST_BYTES)
        return rd_fail(err, RD_INVALID, "its table has %zu bytes, at least %d are needed", t->size,
                       (int)FIRST_BYTES);
    if (!t->name || strcmp(t->name, name) != 0)
        return rd_fail(err, RD_INVALID, "it calls itself %.32s", t->name ? t->name : "nothing");
    *out = (rd_backend){ 0 };
    memcpy(out, t, t->size < sizeof *out ? t->size : sizeof *out);
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        rd_plugin_entry verb;

        memcpy(&verb, (const char *)out + verbs[i].at, sizeof verb);
        if (!verb) return rd_fail(err, RD_INVALID, "it has no verb %s", verbs[i].name);
    }
    return RD_OK;
}

/* ---- loading; the mutex is held ---- */

static rd_plugin_entry symbol_of(void *handle, const char *symbol)
{
    rd_plugin_entry entry = NULL;
    void *found = dlsym(handle, symbol);

    memcpy(&entry, &found, sizeof entry);
    return entry;
}

/* The loader's own words, without the file's name at their beginning. */
static rd_status loader_fails(const char *path, rd_error *err)
{
    const char *text = dlerror();
    size_t n = strlen(path);

    if (!text) text = "the loader does not say why";
    if (!strncmp(text, path, n) && !strncmp(text + n, ": ", 2)) text += n + 2;
    return rd_fail(err, RD_INVALID, "%s: %s", path, text);
}

/* A refused one is not unloaded either: its code may have left something running. */
static rd_status load_file(const char *path, const char *name, plugin **out, rd_error *err)
{
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    rd_backend table;
    rd_error why = { 0 };

    if (!handle) return loader_fails(path, err);
    rd_backend_entry_fn entry = (rd_backend_entry_fn)symbol_of(handle, "rd_backend_entry");

    if (!entry) return rd_fail(err, RD_INVALID, "%s: it exports no rd_backend_entry", path);
    if (check_table(name, entry(), &table, &why))
        return rd_fail(err, why.status, "%s: %s", path, why.text);
    plugin *p = rd_alloc0(sizeof *p);

    p->name = rd_copy_text(name, strlen(name));
    p->handle = handle;
    p->table = table;
    p->table.name = p->name;
    p->next = plugins.loaded;
    plugins.loaded = p;
    *out = p;
    return RD_OK;
}

static plugin *find_loaded(const char *name)
{
    plugin *p = plugins.loaded;

    while (p && strcmp(p->name, name) != 0) p = p->next;
    return p;
}

static rd_status load(const char *name, plugin **out, rd_error *err)
{
    char file[RD_PLUGIN_NAME_BYTES + sizeof PREFIX SUFFIX], real[PATH_MAX];
    folder_list l;
    rd_status s = RD_NOT_FOUND;

    *out = find_loaded(name);
    if (*out) return RD_OK;
    snprintf(file, sizeof file, PREFIX "%s" SUFFIX, name);
    find_folders(&l);
    for (int i = 0; i < l.n && s == RD_NOT_FOUND; i++)
        s = rd_plugin_file_check(l.path[i], file, real, err);
    clear_folders(&l);
    if (s == RD_NOT_FOUND)
        return rd_fail(err, RD_NOT_FOUND, "not built into this version: there is no %s", file);
    return s ? s : load_file(real, name, out, err);
}

static rd_status find_plugin(const char *name, plugin **out, rd_error *err)
{
    pthread_mutex_lock(&plugins.mutex);
    rd_status s = load(name, out, err);

    pthread_mutex_unlock(&plugins.mutex);
    return s;
}

/* ---- finding ---- */

/* The reason without the name of the backend. */
static rd_status find_usable(const char *name, const rd_backend **out, rd_error *err)
{
    plugin *p;

    if (!strcmp(name, "cpu")) {
        *out = rd_cpu_backend();
        return RD_OK;
    }
    if (find_plugin(name, &p, err)) return err->status;
    if (p->table.probe && p->table.probe(err))
        return err->status ? err->status : rd_fail(err, RD_DEVICE, "no device");
    *out = &p->table;
    return RD_OK;
}

rd_status rd_backend_find(const char *name, const rd_backend **out, rd_error *err)
{
    rd_error why = { 0 };

    if (rd_backend_is_auto(name)) {
        if (find_usable("cuda", out, &why)) *out = rd_cpu_backend();
        if (why.status && why.status != RD_NOT_FOUND)
            rd_log(RD_LOG_INFO, "cuda is not used: %s", why.text);
        return RD_OK;
    }
    if (is_name(name, strlen(name)) && !find_usable(name, out, &why)) return RD_OK;
    if (!why.status || (why.status == RD_NOT_FOUND && strcmp(name, "cuda") != 0))
        return rd_fail(err, RD_NOT_FOUND, "no backend is called %s; redraft plugins lists them",
                       name);
    return rd_fail(err, why.status, "backend %s: %s", name, why.text);
}

rd_status rd_plugin_symbol(const char *name, const char *symbol, rd_plugin_entry *out,
                           rd_error *err)
{
    plugin *p;
    rd_error local;

    if (!err) err = &local;
    if (!is_name(name, strlen(name)) || !strcmp(name, "cpu"))
        return rd_fail(err, RD_NOT_FOUND, "backend %s is no plugin", name);
    if (find_plugin(name, &p, err)) return err->status;
    rd_plugin_entry entry = symbol_of(p->handle, symbol);

    if (!entry) return rd_fail(err, RD_NOT_FOUND, "backend %s exports no %s", name, symbol);
    *out = entry;
    return RD_OK;
}

/* ---- listing ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const rd_plugin_row *)a)->name, ((const rd_plugin_row *)b)->name);
}

static void add_row(rd_plugin_row *rows, size_t *n, const char *name)
{
    for (size_t i = 0; i < *n; i++)
        if (!strcmp(rows[i].name, name)) return;
    if (*n < ROWS_MOST) snprintf(rows[(*n)++].name, RD_PLUGIN_NAME_BYTES, "%s", name);
}

static void add_files(rd_plugin_row *rows, size_t *n, const char *path)
{
    DIR *dir = opendir(path);
    char name[RD_PLUGIN_NAME_BYTES];

    for (struct dirent *e; dir && (e = readdir(dir));)
        if (name_of_file(e->d_name, name)) add_row(rows, n, name);
    if (dir) closedir(dir);
}

size_t rd_plugins_list(rd_plugin_row **out)
{
    rd_plugin_row *rows = rd_alloc_array(ROWS_MOST, sizeof *rows);
    folder_list l;
    size_t n = 0;

    add_row(rows, &n, "cpu");
    add_row(rows, &n, "cuda");
    pthread_mutex_lock(&plugins.mutex);
    find_folders(&l);
    for (int i = 0; i < l.n; i++) add_files(rows, &n, l.path[i]);
    pthread_mutex_unlock(&plugins.mutex);
    clear_folders(&l);
    qsort(rows + 2, n - 2, sizeof *rows, by_name);
    for (size_t i = 0; i < n; i++) {
        rd_error why = { 0 };

        if (find_usable(rows[i].name, &rows[i].backend, &why))
            snprintf(rows[i].why, sizeof rows[i].why, "%s", why.text);
    }
    *out = rows;
    return n;
}
