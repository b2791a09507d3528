/* log.h - one line, lower case, facts and units; to stderr or a sink, never to stdout.
 *
 * Core and cache say nothing unless they are asked at a level that somebody set. The user's code
 * is never logged above RD_LOG_DEBUG. Any thread.
 */
#ifndef RD_BASE_LOG_H
#define RD_BASE_LOG_H

typedef enum rd_log_level { RD_LOG_ERROR, RD_LOG_WARN, RD_LOG_INFO, RD_LOG_DEBUG } rd_log_level;

typedef void (*rd_log_sink)(void *user, rd_log_level level, const char *line);

/* Levels above `level` are dropped; the default is RD_LOG_WARN. NULL sink means stderr. Call before
 * threads start. */
void rd_log_to(rd_log_level level, rd_log_sink sink, void *user);
void rd_log(rd_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
