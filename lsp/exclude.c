/* exclude.c - layers of patterns, each judged by itself: built-in and user's, project's, ignore files'. */
#include "lsp/exclude.h"

#include "core/base/memory.h"
#include "lsp/glob.h"
#include "lsp/limits.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* In the order in which they are judged; the first two are one list, so that the user takes back what is built in. */
typedef enum source { BUILT_IN, OF_USER, OF_PROJECT, OF_IGNORE } source;

typedef struct rule {
    source from;
    char *root; /* without a slash at the end: "" is "/" */
    size_t depth;
    rd_glob *glob; /* NULL: all below the root, since a rule could not be kept */
} rule;

typedef struct setting {
    rd_layer layer;
    char *language, *root;
    rd_glob *glob;
    bool has_enabled, has_uncached, has_quality, has_confidence, has_max, has_debounce;
    rd_file_settings value;
} setting;

struct rd_rules {
    size_t most_bytes;
    rule *rules; /* sorted: a source's by the depth of their roots, then as they came */
    size_t count, cap, pattern_bytes;
    setting *settings;
    size_t setting_count, setting_cap;
};

static const char *const secret_names[] = {
    ".env*",
    "*.env",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.pkcs12",
    "*.jks",
    "*.keystore",
    "*.kdbx",
    "*.ppk",
    "*.p8",
    "*.der",
    "*.gpg",
    "*.pgp",
    "*.ovpn",
    "*.tfstate",
    "*.tfvars",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    ".netrc",
    "_netrc",
    ".pgpass",
    ".my.cnf",
    ".npmrc",
    ".pypirc",
    ".htpasswd",
    ".git-credentials",
    "credentials",
    "credentials.json",
    "credentials.y*ml",
    "secrets.json",
    "secrets.y*ml",
    "secrets.toml",
    ".ssh/",
    ".gnupg/",
    ".aws/",
    ".azure/",
    ".kube/",
    ".docker/",
    ".git/",
    ".vault-token",
    ".password-store/",
    "master.key",
    "service-account*.json",
};

/* The pieces of an absolute path, or 0 when it is none, too long or too deep. */
static size_t cut_path(const char *path, rd_glob_piece *out)
{
    size_t n = strlen(path), count = 0;

    if (n > RD_MOST_PATH_BYTES || *path != '/') return 0;
    for (const char *s = path + 1; s <= path + n;) {
        const char *slash = strchr(s, '/');
        size_t len = slash ? (size_t)(slash - s) : strlen(s);

        if (count == RD_MOST_PATH_DEPTH) return 0;
        if (len == 0 || (len == 1 && *s == '.') || (len == 2 && s[0] == '.' && s[1] == '.'))
            return 0;
        out[count++] = (rd_glob_piece){ s, len };
        s += len + 1;
    }
    return count;
}

static char *copy_root(const char *root, size_t *depth)
{
    size_t n = strlen(root);

    while (n > 0 && root[n - 1] == '/') n--;
    *depth = 0;
    for (size_t i = 0; i < n; i++) *depth += root[i] == '/';
    return rd_copy_text(root, n);
}

static void insert(rd_rules *r, rule fresh)
{
    size_t at = r->count;

    if (r->count == r->cap) {
        r->cap = r->cap ? 2 * r->cap : 64;
        r->rules = rd_resize(r->rules, r->cap, sizeof *r->rules);
    }
    while (at > 0 && (r->rules[at - 1].from > fresh.from || (r->rules[at - 1].from == fresh.from &&
                                                             r->rules[at - 1].depth > fresh.depth)))
        at--;
    memmove(&r->rules[at + 1], &r->rules[at], (r->count - at) * sizeof fresh);
    r->rules[at] = fresh;
    r->count++;
}

/* A rule that could not be kept: all below its root is excluded, or everything where that happens too often. */
static rd_status cannot_keep(rd_rules *r, source from, const char *root, rd_error *err)
{
    rule fresh = { .from = from };

    fresh.root = copy_root(r->count < 2 * RD_MOST_PATTERNS ? root : "/", &fresh.depth);
    for (size_t i = 0; i < r->count; i++) {
        const rule *one = &r->rules[i];

        if (one->from != from || one->glob || strcmp(one->root, fresh.root) != 0) continue;
        free(fresh.root);
        fresh.root = NULL;
        break;
    }
    if (fresh.root) insert(r, fresh);
    return rd_fail(err, RD_INVALID,
                   "%s: a pattern over %zu bytes, or over %d patterns: all below is excluded", root,
                   RD_MOST_PATTERN_BYTES, RD_MOST_PATTERNS);
}

/* One line; a blank one and a comment are none. */
static rd_status add(rd_rules *r, source from, const char *root, const char *line, size_t n,
                     rd_error *err)
{
    rule fresh = { .from = from };

    if (n == 0 || *line == '#') return RD_OK;
    if (n > RD_MOST_PATTERN_BYTES || r->count >= RD_MOST_PATTERNS ||
        r->pattern_bytes + n > RD_MOST_PATTERNS_BYTES)
        return cannot_keep(r, from, root, err);
    fresh.glob = rd_glob_new(line, n);
    if (!fresh.glob) return RD_OK;
    r->pattern_bytes += n;
    fresh.root = copy_root(root, &fresh.depth);
    insert(r, fresh);
    return RD_OK;
}

rd_rules *rd_rules_new(size_t most_bytes)
{
    rd_rules *r = rd_alloc0(sizeof *r);

    r->most_bytes = most_bytes;
    for (size_t i = 0; i < sizeof secret_names / sizeof *secret_names; i++)
        add(r, BUILT_IN, "/", secret_names[i], strlen(secret_names[i]), NULL);
    return r;
}

void rd_rules_free(rd_rules *r)
{
    if (!r) return;
    for (size_t i = 0; i < r->count; i++) {
        rd_glob_free(r->rules[i].glob);
        free(r->rules[i].root);
    }
    for (size_t i = 0; i < r->setting_count; i++) {
        rd_glob_free(r->settings[i].glob);
        free(r->settings[i].root);
        free(r->settings[i].language);
    }
    free(r->rules);
    free(r->settings);
    free(r);
}

rd_status rd_rules_pattern(rd_rules *r, rd_layer layer, const char *root, const char *pattern,
                           rd_error *err)
{
    return add(r, layer == RD_LAYER_USER ? OF_USER : OF_PROJECT, root, pattern, strlen(pattern),
               err);
}

rd_status rd_rules_ignore_file(rd_rules *r, const char *folder, const char *bytes, size_t n,
                               rd_error *err)
{
    size_t at = n >= 3 && !memcmp(bytes, "\xef\xbb\xbf", 3) ? 3 : 0;

    while (at < n) {
        const char *end = memchr(bytes + at, '\n', n - at);
        size_t len = end ? (size_t)(end - bytes) - at : n - at;
        rd_status s = add(r, OF_IGNORE, folder, bytes + at, len, err);

        if (s) return s;
        at += len + 1;
    }
    return RD_OK;
}

/* How many pieces of the path lie in the root, or SIZE_MAX when the path is not below it. */
static size_t below(const char *root, size_t depth, const char *path)
{
    size_t n = strlen(root);

    return !strncmp(root, path, n) && path[n] == '/' ? depth : SIZE_MAX;
}

/* Judge the rules [i, end): the last one that matches a folder or the file decides about it, and below a
 * folder that is excluded nothing is taken back. Returns the rule that excludes, or NULL. */
static const rule *judge(const rd_rules *r, size_t i, size_t end, const char *path,
                         const rd_glob_piece *pieces, size_t n)
{
    const rule *by[RD_MOST_PATH_DEPTH] = { 0 };
    bool hits[RD_MOST_PATH_DEPTH];
    size_t steps = RD_MOST_GLOB_STEPS;

    for (; i < end; i++) {
        const rule *one = &r->rules[i];
        size_t from = below(one->root, one->depth, path);

        if (from == SIZE_MAX) continue;
        if (!one->glob) return one;
        bool takes_back = rd_glob_takes_back(one->glob);

        if (!rd_glob_match(one->glob, pieces + from, n - from, !takes_back, &steps, hits))
            return one; /* rules that are too costly to judge exclude */
        for (size_t k = from; k < n; k++)
            if (hits[k - from]) by[k] = takes_back ? NULL : one;
    }
    for (size_t k = 0; k < n; k++)
        if (by[k]) return by[k];
    return NULL;
}

/* Behind the rules from i on that come from `last` or before it. */
static size_t end_of(const rd_rules *r, size_t i, source last)
{
    while (i < r->count && r->rules[i].from <= last) i++;
    return i;
}

static bool starts(const char *s, size_t n, const char *with)
{
    size_t len = strlen(with);

    return n >= len && !memcmp(s, with, len);
}

/* A key in a file of any name: only where the file begins with it, since sources quote keys. */
static bool is_key(const char *s, size_t n)
{
    if (starts(s, n, "\xef\xbb\xbf")) {
        s += 3;
        n -= 3;
    }
    while (n > 0 && (*s == ' ' || *s == '\n' || *s == '\r' || *s == '\t')) s++, n--;
    size_t line = 0;

    while (line < n && s[line] != '\n') line++;
    if (starts(s, line, "-----BEGIN ")) return memmem(s, line, "PRIVATE KEY", 11) != NULL;
    return starts(s, line, "PuTTY-User-Key-File") || starts(s, line, "AGE-SECRET-KEY-");
}

static rd_verdict verdict_of(source from)
{
    static const rd_verdict verdicts[] = { RD_EXCLUDED_SECRET, RD_EXCLUDED_USER,
                                           RD_EXCLUDED_PROJECT, RD_EXCLUDED_IGNORED };

    return verdicts[from];
}

rd_verdict rd_excluded(const rd_rules *r, const rd_candidate *c, const char **why)
{
    static const source lists[] = { OF_USER, OF_PROJECT, OF_IGNORE };
    rd_glob_piece pieces[RD_MOST_PATH_DEPTH];
    size_t n = c->path ? cut_path(c->path, pieces) : 0, at = 0;
    const char *ignored;

    if (!why) why = &ignored;
    *why = "not a path that can be judged";
    if (c->path && n == 0) return RD_EXCLUDED_PATH;
    for (size_t k = 0; c->path && k < sizeof lists / sizeof *lists; k++) {
        size_t end = end_of(r, at, lists[k]);
        const rule *by = judge(r, at, end, c->path, pieces, n);

        if (by) {
            *why = by->glob ? rd_glob_text(by->glob) : "rules that could not be kept";
            return verdict_of(by->from);
        }
        at = end;
    }
    *why = "a private key";
    if (is_key(c->head, c->head_n)) return RD_EXCLUDED_SECRET;
    *why = "its size";
    if (c->bytes > r->most_bytes) return RD_EXCLUDED_SIZE;
    *why = "binary";
    if (c->head_n > 0 && memchr(c->head, 0, c->head_n)) return RD_EXCLUDED_BINARY;
    *why = NULL;
    return RD_ALLOWED;
}

/* ---- settings ---- */

static rd_status check(const rd_file_setting *s, rd_error *err)
{
    const double *shares[] = { s->quality, s->min_confidence };
    const int *times[] = { s->max_ms, s->debounce_ms };
    static const char *const share_names[] = { "quality", "minConfidence" };
    static const char *const time_names[] = { "maxMs", "debounceMs" };

    for (int i = 0; i < 2; i++) {
        if (shares[i] && !(*shares[i] >= 0 && *shares[i] <= 1))
            return rd_fail(err, RD_INVALID, "%s is not from 0 to 1", share_names[i]);
        if (times[i] && (*times[i] < 0 || *times[i] > 3600000))
            return rd_fail(err, RD_INVALID, "%s is not from 0 to 3600000", time_names[i]);
    }
    return RD_OK;
}

rd_status rd_rules_setting(rd_rules *r, rd_layer layer, const rd_file_setting *s, rd_error *err)
{
    setting fresh = { .layer = layer };
    size_t depth;

    if (check(s, err)) return RD_INVALID;
    if (r->setting_count == RD_MOST_PATTERNS)
        return rd_fail(err, RD_INVALID, "more than %d settings for files", RD_MOST_PATTERNS);
    if (s->pattern && !(fresh.glob = rd_glob_new(s->pattern, strlen(s->pattern))))
        return rd_fail(err, RD_INVALID, "not a pattern for files");
    fresh.root = copy_root(s->root ? s->root : "/", &depth);
    if (s->language) fresh.language = rd_copy_text(s->language, strlen(s->language));
    if ((fresh.has_enabled = s->enabled)) fresh.value.enabled = *s->enabled;
    if ((fresh.has_uncached = s->uncached)) fresh.value.uncached = *s->uncached;
    if ((fresh.has_quality = s->quality)) fresh.value.quality = *s->quality;
    if ((fresh.has_confidence = s->min_confidence)) fresh.value.min_confidence = *s->min_confidence;
    if ((fresh.has_max = s->max_ms)) fresh.value.max_ms = *s->max_ms;
    if ((fresh.has_debounce = s->debounce_ms)) fresh.value.debounce_ms = *s->debounce_ms;
    if (r->setting_count == r->setting_cap) {
        r->setting_cap = r->setting_cap ? 2 * r->setting_cap : 8;
        r->settings = rd_resize(r->settings, r->setting_cap, sizeof fresh);
    }
    r->settings[r->setting_count++] = fresh;
    return RD_OK;
}

static bool is_for(const setting *s, const char *path, const rd_glob_piece *pieces, size_t n,
                   const char *language)
{
    bool hits[RD_MOST_PATH_DEPTH] = { 0 };
    size_t depth = 0, from, steps = RD_MOST_GLOB_STEPS;

    if (s->language && strcasecmp(s->language, language) != 0) return false;
    for (const char *c = s->root; *c; c++) depth += *c == '/';
    from = below(s->root, depth, path);
    if (from == SIZE_MAX || n == 0) return !s->glob && *s->root == 0;
    if (!s->glob) return true;
    if (!rd_glob_match(s->glob, pieces + from, n - from, true, &steps, hits)) return false;
    for (size_t k = 0; k < n - from; k++)
        if (hits[k]) return !rd_glob_takes_back(s->glob);
    return rd_glob_takes_back(s->glob);
}

static void set(rd_file_settings *out, const setting *s)
{
    const rd_file_settings *v = &s->value;

    if (s->layer == RD_LAYER_USER) {
        if (s->has_enabled) out->enabled = v->enabled;
        if (s->has_uncached) out->uncached = v->uncached;
        if (s->has_quality) out->quality = v->quality;
        if (s->has_confidence) out->min_confidence = v->min_confidence;
        if (s->has_max) out->max_ms = v->max_ms;
        if (s->has_debounce) out->debounce_ms = v->debounce_ms;
        return;
    }
    if (s->has_enabled) out->enabled = out->enabled && v->enabled;
    if (s->has_uncached) out->uncached = out->uncached || v->uncached;
    double *confidence = out->min_confidence < 0 ? &out->least_confidence : &out->min_confidence;

    if (s->has_confidence && v->min_confidence > *confidence) *confidence = v->min_confidence;
    if (s->has_max && v->max_ms < out->max_ms) out->max_ms = v->max_ms;
    if (s->has_debounce && v->debounce_ms > out->debounce_ms) out->debounce_ms = v->debounce_ms;
}

rd_file_settings rd_settings_for(const rd_rules *r, const char *path, const char *language,
                                 rd_file_settings defaults)
{
    rd_glob_piece pieces[RD_MOST_PATH_DEPTH];
    size_t n = cut_path(path, pieces);

    for (int layer = RD_LAYER_USER; layer <= RD_LAYER_PROJECT; layer++)
        for (size_t i = 0; i < r->setting_count; i++)
            if ((int)r->settings[i].layer == layer &&
                is_for(&r->settings[i], path, pieces, n, language))
                set(&defaults, &r->settings[i]);
    return defaults;
}

double rd_file_confidence(const rd_file_settings *s, double gate)
{
    if (s->min_confidence >= 0) return s->min_confidence;
    return s->least_confidence > gate ? s->least_confidence : gate;
}
