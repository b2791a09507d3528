/* main.c - the program: one table of calls. */
#include "core/tools/tool.h"

int main(int argc, char **argv)
{
    return rd_tools_main(argc, argv);
}
