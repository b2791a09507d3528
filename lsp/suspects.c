/* suspects.c - a short list of hashes. */
#include "lsp/suspects.h"

#include <string.h>

static int mix(const char *bytes, size_t n, void *hash)
{
    uint64_t h = *(uint64_t *)hash;

    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)bytes[i]) * 0x100000001b3u;
    *(uint64_t *)hash = h;
    return 0;
}

uint64_t rd_suspects_hash(const char *method, const json_t *params, uint64_t text)
{
    static const char *const tokens[] = { "workDoneToken", "partialResultToken", "_meta" };
    json_t *rest = params ? json_copy((json_t *)params) : NULL;
    uint64_t hash = 0xcbf29ce484222325u;

    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) json_object_del(rest, tokens[i]);
    mix(method, strlen(method) + 1, &hash);
    mix((const char *)&text, sizeof text, &hash);
    if (rest) json_dump_callback(rest, mix, &hash, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(rest);
    return hash;
}

void rd_suspects_add(rd_suspects *s, uint64_t hash)
{
    for (int i = 0; i < RD_SUSPECTS; i++)
        if (s->list[i].deaths && s->list[i].hash == hash) {
            s->list[i].deaths++;
            return;
        }
    s->list[s->next].hash = hash;
    s->list[s->next].deaths = 1;
    s->next = (s->next + 1) % RD_SUSPECTS;
}

int rd_suspects_deaths(const rd_suspects *s, uint64_t hash)
{
    for (int i = 0; i < RD_SUSPECTS; i++)
        if (s->list[i].deaths && s->list[i].hash == hash) return s->list[i].deaths;
    return 0;
}
