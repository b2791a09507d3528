/* safetensors.c - weight files read: validate the whole header, then show tensors.
 *
 * Reading trusts nothing: the header's length, each shape's product and each pair of offsets are
 * held against the file before a tensor can be seen, and the tensors of a file must fill its data
 * to the byte. A folder's shards become one list with one hash table of names.
 */
#include "core/format/safetensors.h"

#include "core/base/memory.h"
#include "core/format/file.h"
#include "core/format/header.h"
#include "core/format/json.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HEADER_BYTES   ((size_t)RD_SAFETENSORS_HEADER_MOST)
#define HEADER_VALUES  2000000
#define HEADER_ENTRIES (HEADER_VALUES / 8) /* a tensor is eight values at least */
#define INDEX_BYTES    ((size_t)64 << 20)
#define INDEX_VALUES   1000000
#define MAX_SHARDS     4096
#define NAME_BYTES     1024

_Static_assert(RD_HEADER_RANK == RD_TENSOR_RANK, "a header holds what a tensor has");

struct rd_safetensors {
    rd_map *maps;
    int map_count;
    rd_tensor *tensors;
    int *shard; /* of each tensor */
    int count, cap;
    uint32_t *slots; /* open addressing: tensor index + 1, 0 is free */
    size_t slot_count;
    char **meta; /* key, value, key, value ... */
    int meta_count;
    rd_arena arena; /* names */
};

/* --- names --- */

static uint64_t hash_name(const char *name)
{
    uint64_t h = 14695981039346656037u; /* FNV-1a */

    for (; *name; name++) h = (h ^ (unsigned char)*name) * 1099511628211u;
    return h ^ (h >> 32);
}

static int find_index(const rd_safetensors *s, const char *name)
{
    if (!s->slot_count) return -1;
    for (size_t i = hash_name(name) & (s->slot_count - 1);; i = (i + 1) & (s->slot_count - 1)) {
        if (!s->slots[i]) return -1;
        int at = (int)s->slots[i] - 1;
        if (strcmp(s->tensors[at].name, name) == 0) return at;
    }
}

static void put_slot(rd_safetensors *s, int at)
{
    size_t i = hash_name(s->tensors[at].name) & (s->slot_count - 1);

    while (s->slots[i]) i = (i + 1) & (s->slot_count - 1);
    s->slots[i] = (uint32_t)at + 1;
}

static void reserve(rd_safetensors *s, int more)
{
    if (s->count + more <= s->cap) return;
    s->cap = s->count + more;
    s->tensors = rd_resize(s->tensors, (size_t)s->cap, sizeof *s->tensors);
    s->shard = rd_resize(s->shard, (size_t)s->cap, sizeof *s->shard);
    free(s->slots);
    for (s->slot_count = 16; s->slot_count < 2 * (size_t)s->cap;) s->slot_count *= 2;
    s->slots = rd_alloc_array(s->slot_count, sizeof *s->slots);
    for (int i = 0; i < s->count; i++) put_slot(s, i);
}

/* --- the header of one file --- */

static bool dtype_of(const char *name, rd_dtype *out)
{
    for (int t = RD_F32; t <= RD_F8_E4M3; t++)
        if (strcmp(rd_dtype_name((rd_dtype)t), name) == 0) {
            *out = (rd_dtype)t;
            return true;
        }
    return false;
}

/* Lists of whole numbers out of JSON, for headers that are not of the usual form. */
static rd_status json_shape(const json_t *shape, const char *file, const char *name,
                            rd_header_entry *out, rd_error *err)
{
    if (!json_is_array(shape) || json_array_size(shape) > RD_TENSOR_RANK)
        return rd_fail(err, RD_INVALID, "%s: %s: shape is not a list of at most %d numbers", file,
                       name, RD_TENSOR_RANK);
    out->rank = (int)json_array_size(shape);
    for (int i = 0; i < out->rank; i++) {
        const json_t *v = json_array_get(shape, (size_t)i);

        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return rd_fail(err, RD_INVALID, "%s: %s: a size in its shape is not a whole number",
                           file, name);
        out->shape[i] = json_integer_value(v);
    }
    return RD_OK;
}

static rd_status json_entry(const json_t *v, const char *file, const char *name,
                            rd_header_entry *out, rd_error *err)
{
    const char *dtype = json_string_value(json_object_get(v, "dtype"));
    const json_t *offsets = json_object_get(v, "data_offsets");
    const json_t *b = json_array_get(offsets, 0), *e = json_array_get(offsets, 1);
    rd_dtype known;

    if (!dtype) return rd_fail(err, RD_INVALID, "%s: %s: dtype is missing", file, name);
    if (!dtype_of(dtype, &known))
        return rd_fail(err, RD_INVALID, "%s: %s: dtype %.20s is not supported", file, name, dtype);
    memcpy(out->dtype, dtype, strlen(dtype) + 1);
    if (json_shape(json_object_get(v, "shape"), file, name, out, err)) return RD_INVALID;
    if (json_array_size(offsets) != 2 || !json_is_integer(b) || !json_is_integer(e))
        return rd_fail(err, RD_INVALID, "%s: %s: data_offsets are not two whole numbers", file,
                       name);
    out->begin = json_integer_value(b);
    out->end = json_integer_value(e);
    return RD_OK;
}

/* A tensor whose name is set: type, sizes and place, each held against the data. */
static rd_status place_tensor(const rd_header_entry *e, const char *file, const char *data,
                              size_t data_bytes, rd_tensor *t, rd_error *err)
{
    int64_t largest = 0;

    if (!dtype_of(e->dtype, &t->dtype))
        return rd_fail(err, RD_INVALID, "%s: %s: dtype %.20s is not supported", file, t->name,
                       e->dtype);
    size_t bytes = rd_dtype_bytes(t->dtype);

    t->rank = e->rank;
    for (int i = 0; i < t->rank; i++) {
        t->shape[i] = e->shape[i];
        if (t->shape[i] > largest) largest = t->shape[i];
        if (!rd_mul(bytes, (size_t)t->shape[i], &bytes))
            return rd_fail(err, RD_INVALID, "%s: %s: its shape overflows", file, t->name);
    }
    if (bytes == 0 && largest > INT32_MAX) /* no file holds a row of it */
        return rd_fail(err, RD_INVALID, "%s: %s: its shape overflows", file, t->name);
    t->bytes = bytes;
    if (e->begin < 0 || e->end < e->begin || (uint64_t)e->end > data_bytes)
        return rd_fail(err, RD_INVALID,
                       "%s: %s: data_offsets %lld to %lld are outside the data of %zu bytes", file,
                       t->name, (long long)e->begin, (long long)e->end, data_bytes);
    if ((size_t)(e->end - e->begin) != t->bytes)
        return rd_fail(err, RD_INVALID, "%s: %s: its shape needs %zu bytes, data_offsets give %zu",
                       file, t->name, t->bytes, (size_t)(e->end - e->begin));
    t->data = data + e->begin;
    return RD_OK;
}

static rd_status read_meta(rd_safetensors *s, json_t *meta, const char *file, rd_error *err)
{
    const char *key;
    json_t *v;

    if (!json_is_object(meta))
        return rd_fail(err, RD_INVALID, "%s: __metadata__ is not an object", file);
    json_object_foreach(meta, key, v)
    {
        if (!json_is_string(v))
            return rd_fail(err, RD_INVALID, "%s: __metadata__: %.60s is not a string", file, key);
        if (rd_safetensors_meta(s, key)) continue; /* the first shard's word stands */
        s->meta = rd_resize(s->meta, 2 * (size_t)(s->meta_count + 1), sizeof *s->meta);
        s->meta[2 * s->meta_count] = rd_arena_copy_text(&s->arena, key, strlen(key));
        s->meta[2 * s->meta_count + 1] =
            rd_arena_copy_text(&s->arena, json_string_value(v), json_string_length(v));
        s->meta_count++;
    }
    return RD_OK;
}

static int by_place(const void *a, const void *b)
{
    const rd_tensor *x = *(const rd_tensor *const *)a, *y = *(const rd_tensor *const *)b;

    if (x->data != y->data) return (const char *)x->data < (const char *)y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

/* The tensors from `first` on must follow each other from the data's first byte to its last. */
static rd_status check_cover(const rd_safetensors *s, int first, const char *file, const char *data,
                             size_t data_bytes, rd_error *err)
{
    int n = s->count - first;
    const rd_tensor **order = rd_alloc_array((size_t)n, sizeof *order);
    const char *at = data;
    bool sorted = true; /* as a header of one writer's is */
    rd_status status = RD_OK;

    for (int i = 0; i < n; i++) {
        order[i] = &s->tensors[first + i];
        sorted = sorted && (!i || by_place(&order[i - 1], &order[i]) <= 0);
    }
    if (!sorted) qsort(order, (size_t)n, sizeof *order, by_place);
    for (int i = 0; i < n && !status; i++) {
        if ((const char *)order[i]->data != at)
            status = rd_fail(err, RD_INVALID, "%s: %s: %s", file, order[i]->name,
                             (const char *)order[i]->data < at ? "overlaps the tensor before it"
                                                               : "a gap in the data before it");
        at = (const char *)order[i]->data + order[i]->bytes;
    }
    if (!status && (size_t)(at - data) != data_bytes)
        status = rd_fail(err, RD_INVALID, "%s: %zu bytes behind the last tensor", file,
                         data_bytes - (size_t)(at - data));
    free(order);
    return status;
}

/* A file's header and what it is about. */
typedef struct header {
    const char *file; /* for messages */
    rd_span text;
    const char *data;
    size_t data_bytes;
} header;

static rd_status check_name(const header *h, rd_span name, rd_error *err)
{
    if (name.n <= NAME_BYTES) return RD_OK;
    return rd_fail(err, RD_INVALID, "%s: %.60s...: a name of %zu bytes is too long", h->file,
                   name.at, name.n);
}

/* One more tensor, for which there is room. */
static rd_status add_entry(rd_safetensors *s, const header *h, const rd_header_entry *e,
                           rd_error *err)
{
    rd_tensor t = { 0 };

    if (check_name(h, e->name, err)) return RD_INVALID;
    t.name = rd_arena_copy_text(&s->arena, e->name.at, e->name.n);
    int before = find_index(s, t.name);

    if (before >= 0)
        return rd_fail(err, RD_INVALID,
                       s->shard[before] == s->map_count ? "%s: %s: a duplicate name"
                                                        : "%s: %s: stands in another shard too",
                       h->file, t.name);
    if (place_tensor(e, h->file, h->data, h->data_bytes, &t, err)) return RD_INVALID;
    s->shard[s->count] = s->map_count;
    s->tensors[s->count] = t;
    put_slot(s, s->count++);
    return RD_OK;
}

static rd_status add_json_entries(rd_safetensors *s, const header *h, json_t *json, rd_error *err)
{
    const char *key;
    json_t *v;

    reserve(s, (int)json_object_size(json)); /* at most HEADER_VALUES */
    json_object_foreach(json, key, v)
    {
        rd_header_entry e = { .name = { key, strlen(key) } };

        if (strcmp(key, "__metadata__") == 0) {
            if (read_meta(s, v, h->file, err)) return RD_INVALID;
            continue;
        }
        if (check_name(h, e.name, err) || json_entry(v, h->file, key, &e, err) ||
            add_entry(s, h, &e, err))
            return RD_INVALID;
    }
    return RD_OK;
}

/* How many entries a header of the usual form has; 0: it is not of that form, or has none. */
static size_t count_usual(const header *h)
{
    rd_header_scan scan;
    rd_header_entry e;
    int metas = 0;

    rd_header_begin(&scan, h->text.at, h->text.n);
    while (scan.entries < HEADER_ENTRIES && rd_header_next(&scan, &e)) metas += e.meta.n > 0;
    return scan.over && metas <= 1 ? scan.entries : 0;
}

static rd_status add_meta(rd_safetensors *s, const header *h, rd_span text, rd_error *err)
{
    json_t *json;
    rd_status status = rd_json_parse(text.at, text.n, HEADER_VALUES, h->file, &json, err);

    if (status) return status;
    status = read_meta(s, json, h->file, err);
    json_decref(json);
    return status;
}

static rd_status add_usual_entries(rd_safetensors *s, const header *h, size_t n, rd_error *err)
{
    rd_header_scan scan;
    rd_header_entry e;

    reserve(s, (int)n); /* at most HEADER_ENTRIES */
    rd_header_begin(&scan, h->text.at, h->text.n);
    while (rd_header_next(&scan, &e))
        if (e.meta.n ? add_meta(s, h, e.meta, err) : add_entry(s, h, &e, err)) return RD_INVALID;
    return RD_OK;
}

static rd_status add_entries(rd_safetensors *s, const header *h, rd_error *err)
{
    int first = s->count;
    size_t usual = count_usual(h);
    json_t *json = NULL;
    rd_status status;

    if (usual) {
        status = add_usual_entries(s, h, usual, err);
    } else {
        status = rd_json_parse(h->text.at, h->text.n, HEADER_VALUES, h->file, &json, err);
        if (!status) status = add_json_entries(s, h, json, err);
        json_decref(json);
    }
    return status ? status : check_cover(s, first, h->file, h->data, h->data_bytes, err);
}

static rd_status add_bytes(rd_safetensors *s, const void *bytes, size_t n, const char *file,
                           rd_error *err)
{
    const unsigned char *p = bytes;
    uint64_t length = 0;

    if (n < 8)
        return rd_fail(err, RD_INVALID, "%s: %zu bytes are too short for a safetensors file", file,
                       n);
    for (int i = 7; i >= 0; i--) length = length << 8 | p[i];
    if (length > HEADER_BYTES)
        return rd_fail(err, RD_INVALID, "%s: a header of %llu bytes is above the limit of %zu",
                       file, (unsigned long long)length, HEADER_BYTES);
    if (length > n - 8)
        return rd_fail(err, RD_INVALID, "%s: the header of %llu bytes ends behind the file", file,
                       (unsigned long long)length);
    const char *text = (const char *)p + 8;
    if (length == 0 || text[0] != '{')
        return rd_fail(err, RD_INVALID, "%s: the header does not begin with {", file);
    header h = { file, { text, (size_t)length }, text + length, n - 8 - (size_t)length };

    return add_entries(s, &h, err);
}

/* --- files and folders --- */

static rd_status add_file(rd_safetensors *s, const char *path, rd_error *err)
{
    rd_map map;
    rd_status status = rd_map_open(path, &map, err);

    if (status) return status;
    s->maps = rd_resize(s->maps, (size_t)s->map_count + 1, sizeof *s->maps);
    s->maps[s->map_count] = map;
    status = add_bytes(s, map.data, map.bytes, path, err);
    s->map_count++;
    return status;
}

/* A shard is a plain file name beside the index: nothing that leads elsewhere. */
static bool plain_name(const char *name)
{
    size_t n = strlen(name), tail = strlen(".safetensors");

    return n > tail && n < 256 && name[0] != '.' && !strpbrk(name, "/\\") && !strstr(name, "..") &&
           strcmp(name + n - tail, ".safetensors") == 0;
}

static rd_status list_shards(json_t *map, const char *path, const char **names, int *count,
                             rd_error *err)
{
    const char *key, *last = NULL;
    json_t *v;

    json_object_foreach(map, key, v)
    {
        const char *name = json_string_value(v);
        bool known = false;

        if (!name || !plain_name(name))
            return rd_fail(err, RD_INVALID, "%s: %.80s: shard \"%.60s\" is not a plain file name",
                           path, key, name ? name : "?");
        if (last && strcmp(last, name) == 0) continue;
        last = name;
        for (int i = 0; i < *count && !known; i++) known = strcmp(names[i], name) == 0;
        if (known) continue;
        if (*count == MAX_SHARDS)
            return rd_fail(err, RD_INVALID, "%s: more than %d shards", path, MAX_SHARDS);
        names[(*count)++] = name;
    }
    if (*count == 0) return rd_fail(err, RD_INVALID, "%s: weight_map names no tensor", path);
    return RD_OK;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* What the index says must be true: each tensor stands in the shard it names. */
static rd_status check_index(const rd_safetensors *s, json_t *map, const char *path,
                             const char **names, rd_error *err)
{
    const char *key;
    json_t *v;

    json_object_foreach(map, key, v)
    {
        int at = find_index(s, key);
        if (at < 0 || strcmp(names[s->shard[at]], json_string_value(v)) != 0)
            return rd_fail(err, RD_INVALID, "%s: %.80s is not in shard %.60s", path, key,
                           json_string_value(v));
    }
    return RD_OK;
}

static rd_status add_shards(rd_safetensors *s, const char *dir, const char *path, json_t *index,
                            rd_error *err)
{
    json_t *map = json_object_get(index, "weight_map");
    const char **names = rd_alloc_array(MAX_SHARDS, sizeof *names);
    int count = 0;
    rd_status status;

    if (!json_is_object(map))
        status = rd_fail(err, RD_INVALID, "%s: weight_map is missing", path);
    else
        status = list_shards(map, path, names, &count, err);
    if (!status) qsort(names, (size_t)count, sizeof *names, by_text);
    for (int i = 0; i < count && !status; i++) {
        char *file = rd_path_join(dir, names[i]);
        status = add_file(s, file, err);
        free(file);
    }
    if (!status) status = check_index(s, map, path, names, err);
    free(names);
    return status;
}

/* A folder: model.safetensors, or the shards that model.safetensors.index.json names. */
static rd_status add_folder(rd_safetensors *s, const char *dir, rd_error *err)
{
    char *single = rd_path_join(dir, "model.safetensors");
    char *index = rd_path_join(dir, "model.safetensors.index.json");
    rd_error why = { 0 };
    json_t *json = NULL;
    rd_status status = add_file(s, single, &why);

    if (status == RD_NOT_FOUND) {
        status = rd_json_read(index, INDEX_BYTES, INDEX_VALUES, &json, &why);
        if (status == RD_NOT_FOUND)
            rd_fail(&why, status, "%s: neither model.safetensors nor an index of shards", dir);
    }
    if (!status && json) status = add_shards(s, dir, index, json, &why);
    if (status) rd_fail(err, status, "%s", why.text);
    json_decref(json);
    free(single);
    free(index);
    return status;
}

rd_status rd_safetensors_open(const char *path, rd_safetensors **out, rd_error *err)
{
    rd_safetensors *s = rd_alloc0(sizeof *s);
    rd_status status = rd_is_folder(path) ? add_folder(s, path, err) : add_file(s, path, err);

    if (status) {
        rd_safetensors_close(s);
        return status;
    }
    *out = s;
    return RD_OK;
}

rd_status rd_safetensors_parse(const void *bytes, size_t n, const char *name, rd_safetensors **out,
                               rd_error *err)
{
    rd_safetensors *s = rd_alloc0(sizeof *s);
    rd_status status = add_bytes(s, bytes, n, name, err);

    if (status) {
        rd_safetensors_close(s);
        return status;
    }
    *out = s;
    return RD_OK;
}

void rd_safetensors_close(rd_safetensors *s)
{
    if (!s) return;
    for (int i = 0; i < s->map_count; i++) rd_map_close(&s->maps[i]);
    free(s->maps);
    free(s->tensors);
    free(s->shard);
    free(s->slots);
    free(s->meta);
    rd_arena_clear(&s->arena);
    free(s);
}

int rd_safetensors_count(const rd_safetensors *s)
{
    return s->count;
}

const rd_tensor *rd_safetensors_at(const rd_safetensors *s, int i)
{
    return i >= 0 && i < s->count ? &s->tensors[i] : NULL;
}

const rd_tensor *rd_safetensors_find(const rd_safetensors *s, const char *name)
{
    int at = find_index(s, name);

    return at < 0 ? NULL : &s->tensors[at];
}

const char *rd_safetensors_meta(const rd_safetensors *s, const char *key)
{
    for (int i = 0; i < s->meta_count; i++)
        if (strcmp(s->meta[2 * i], key) == 0) return s->meta[2 * i + 1];
    return NULL;
}

rd_status rd_safetensors_unchanged(const rd_safetensors *s, rd_error *err)
{
    for (int i = 0; i < s->map_count; i++) {
        rd_status status = rd_map_unchanged(&s->maps[i], err);
        if (status) return status;
    }
    return RD_OK;
}

void rd_safetensors_release(const rd_safetensors *s, const void *from, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = ((uintptr_t)from + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)from + bytes) / page * page;

    if (s->map_count && end > first) (void)madvise((void *)first, end - first, MADV_DONTNEED);
}

/* Training changes every weight, so that any sample tells two trainings apart; a change by hand shows in the times. */
static void name_content(const rd_map *m, rd_key_maker *k)
{
    enum { WHOLE = 16 << 20, PIECES = 256, PIECE = 4096 };
    const char *data = m->data;

    if (m->bytes <= WHOLE) {
        rd_key_add(k, data, m->bytes);
        return;
    }
    for (size_t i = 0; i < PIECES; i++)
        rd_key_add(k, data + (m->bytes - PIECE) / (PIECES - 1) * i, PIECE);
}

void rd_safetensors_name(const rd_safetensors *s, rd_key_maker *k)
{
    for (int i = 0; i < s->map_count; i++) {
        rd_key_add_number(k, s->maps[i].changed_ns);
        rd_key_add_number(k, s->maps[i].stamped_ns);
        rd_key_add_number(k, (int64_t)s->maps[i].bytes);
        name_content(&s->maps[i], k);
    }
}
