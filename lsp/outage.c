/* outage.c - see outage.h. */
#include "lsp/outage.h"

#include "core/base/clock.h"
#include "core/base/log.h"

#include <stdio.h>
#include <string.h>

void rd_outage_init(rd_outage *o, int for_ms)
{
    *o = (rd_outage){ .for_ms = for_ms };
    pthread_mutex_init(&o->mutex, NULL);
}

void rd_outage_clear(rd_outage *o)
{
    pthread_mutex_destroy(&o->mutex);
}

/* True the first time. */
static bool is_news(rd_outage *o, const char *why)
{
    int n = o->n_said < RD_OUTAGE_REASONS ? o->n_said : RD_OUTAGE_REASONS;

    for (int i = 0; i < n; i++)
        if (!strcmp(o->said[i], why)) return false;
    snprintf(o->said[o->n_said++ % RD_OUTAGE_REASONS], sizeof o->said[0], "%s", why);
    return true;
}

void rd_outage_begin(rd_outage *o, const rd_error *err)
{
    pthread_mutex_lock(&o->mutex);
    o->until_ms = rd_now_ms() + o->for_ms;
    snprintf(o->why, sizeof o->why, "%s", *err->text ? err->text : "it does not work");
    bool news = is_news(o, o->why);

    pthread_mutex_unlock(&o->mutex);
    if (news) rd_log(RD_LOG_WARN, "cache: %s; going on without it", err->text);
}

void rd_outage_end(rd_outage *o)
{
    pthread_mutex_lock(&o->mutex);
    bool was = *o->why;

    o->until_ms = 0;
    *o->why = 0;
    pthread_mutex_unlock(&o->mutex);
    if (was) rd_log(RD_LOG_INFO, "cache: works again");
}

bool rd_outage_is(rd_outage *o)
{
    pthread_mutex_lock(&o->mutex);
    bool is = rd_now_ms() < o->until_ms;

    pthread_mutex_unlock(&o->mutex);
    return is;
}

void rd_outage_why(rd_outage *o, char *out, size_t n)
{
    pthread_mutex_lock(&o->mutex);
    snprintf(out, n, "%s", o->why);
    pthread_mutex_unlock(&o->mutex);
}
