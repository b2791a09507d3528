/* page.c - the report as one HTML file. */
#include "core/eval/report.h"

void rd_report_page(const rd_report *r, rd_buf *out)
{
    rd_report_table(r, out);
}
