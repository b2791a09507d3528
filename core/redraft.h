/* redraft.h - what a program that embeds the engine includes. */
#ifndef REDRAFT_H
#define REDRAFT_H

#include "core/engine.h"

#endif
