#include "lsp/context.h"
