#include "plugins/cuda/gpu.cuh"
#include "tests/plugins/cuda/emulator/control.h"
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
Test(emulator, starts)
{
    cr_assert(eq(int, rd_emulated_alive(), 0));
}
