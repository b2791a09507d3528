/* safetensors.c - weight files read: validate the whole header, then show tensors.
 *
 * Reading trusts nothing: the header's length, each shape's product and each pair of offsets are
 * held against the file before a tensor can be seen, and the tensors of a file must fill its data
 * to the byte. A folder's shards become one list with one hash table of names.
 */
#include "core/format/safetensors.h"

#include "core/base/memory.h"
#include "core/format/file.h"
#include "core/format/json.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HEADER_BYTES  ((size_t)RD_SAFETENSORS_HEADER_MOST)
#define HEADER_VALUES 2000000
#define INDEX_BYTES   ((size_t)64 << 20)
#define INDEX_VALUES  1000000
#define MAX_SHARDS    4096
#define NAME_BYTES    1024

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

static rd_status read_shape(const json_t *shape, const char *file, rd_tensor *t, rd_error *err)
{
    size_t bytes = rd_dtype_bytes(t->dtype);
    int64_t largest = 0;

    if (!json_is_array(shape) || json_array_size(shape) > RD_TENSOR_RANK)
        return rd_fail(err, RD_INVALID, "%s: %s: shape is not a list of at most %d numbers", file,
                       t->name, RD_TENSOR_RANK);
    t->rank = (int)json_array_size(shape);
    for (int i = 0; i < t->rank; i++) {
        const json_t *v = json_array_get(shape, (size_t)i);
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return rd_fail(err, RD_INVALID, "%s: %s: a size in its shape is not a whole number",
                           file, t->name);
        t->shape[i] = json_integer_value(v);
        if (t->shape[i] > largest) largest = t->shape[i];
        if (!rd_mul(bytes, (size_t)t->shape[i], &bytes))
            return rd_fail(err, RD_INVALID, "%s: %s: its shape overflows", file, t->name);
    }
    if (bytes == 0 && largest > INT32_MAX) /* no file holds a row of it */
        return rd_fail(err, RD_INVALID, "%s: %s: its shape overflows", file, t->name);
    t->bytes = bytes;
    return RD_OK;
}

static rd_status read_offsets(const json_t *offsets, const char *file, const char *data,
                              size_t data_bytes, rd_tensor *t, rd_error *err)
{
    const json_t *b = json_array_get(offsets, 0), *e = json_array_get(offsets, 1);

    if (json_array_size(offsets) != 2 || !json_is_integer(b) || !json_is_integer(e))
        return rd_fail(err, RD_INVALID, "%s: %s: data_offsets are not two whole numbers", file,
                       t->name);
    json_int_t begin = json_integer_value(b), end = json_integer_value(e);
    if (begin < 0 || end < begin || (uint64_t)end > data_bytes)
        return rd_fail(err, RD_INVALID,
                       "%s: %s: data_offsets %lld to %lld are outside the data of %zu bytes", file,
                       t->name, (long long)begin, (long long)end, data_bytes);
    if ((size_t)(end - begin) != t->bytes)
        return rd_fail(err, RD_INVALID, "%s: %s: its shape needs %zu bytes, data_offsets give %zu",
                       file, t->name, t->bytes, (size_t)(end - begin));
    t->data = data + begin;
    return RD_OK;
}

static rd_status read_entry(const json_t *v, const char *file, const char *data, size_t data_bytes,
                            rd_tensor *t, rd_error *err)
{
    const char *dtype = json_string_value(json_object_get(v, "dtype"));

    if (!dtype) return rd_fail(err, RD_INVALID, "%s: %s: dtype is missing", file, t->name);
    if (!dtype_of(dtype, &t->dtype))
        return rd_fail(err, RD_INVALID, "%s: %s: dtype %.20s is not supported", file, t->name,
                       dtype);
    rd_status s = read_shape(json_object_get(v, "shape"), file, t, err);
    if (s) return s;
    return read_offsets(json_object_get(v, "data_offsets"), file, data, data_bytes, t, err);
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
    rd_status status = RD_OK;

    for (int i = 0; i < n; i++) order[i] = &s->tensors[first + i];
    qsort(order, (size_t)n, sizeof *order, by_place);
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

static rd_status add_entries(rd_safetensors *s, json_t *header, const char *file, const char *data,
                             size_t data_bytes, rd_error *err)
{
    int first = s->count;
    const char *key;
    json_t *v;

    reserve(s, (int)json_object_size(header)); /* at most HEADER_VALUES */
    json_object_foreach(header, key, v)
    {
        rd_tensor t = { 0 };
        rd_status status;

        if (strcmp(key, "__metadata__") == 0) {
            if ((status = read_meta(s, v, file, err))) return status;
            continue;
        }
        if (strlen(key) > NAME_BYTES)
            return rd_fail(err, RD_INVALID, "%s: %.60s...: a name of %zu bytes is too long", file,
                           key, strlen(key));
        if (find_index(s, key) >= 0)
            return rd_fail(err, RD_INVALID, "%s: %s: stands in another shard too", file, key);
        t.name = rd_arena_copy_text(&s->arena, key, strlen(key));
        if ((status = read_entry(v, file, data, data_bytes, &t, err))) return status;
        s->shard[s->count] = s->map_count;
        s->tensors[s->count] = t;
        put_slot(s, s->count++);
    }
    return check_cover(s, first, file, data, data_bytes, err);
}

static rd_status add_bytes(rd_safetensors *s, const void *bytes, size_t n, const char *file,
                           rd_error *err)
{
    const unsigned char *p = bytes;
    uint64_t header = 0;
    json_t *json;

    if (n < 8)
        return rd_fail(err, RD_INVALID, "%s: %zu bytes are too short for a safetensors file", file,
                       n);
    for (int i = 7; i >= 0; i--) header = header << 8 | p[i];
    if (header > HEADER_BYTES)
        return rd_fail(err, RD_INVALID, "%s: a header of %llu bytes is above the limit of %zu",
                       file, (unsigned long long)header, HEADER_BYTES);
    if (header > n - 8)
        return rd_fail(err, RD_INVALID, "%s: the header of %llu bytes ends behind the file", file,
                       (unsigned long long)header);
    const char *text = (const char *)p + 8;
    if (header == 0 || text[0] != '{')
        return rd_fail(err, RD_INVALID, "%s: the header does not begin with {", file);
    rd_status status = rd_json_parse(text, (size_t)header, HEADER_VALUES, file, &json, err);
    if (status) return status;
    status = add_entries(s, json, file, text + header, n - 8 - (size_t)header, err);
    json_decref(json);
    return status;
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
