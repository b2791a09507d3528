/* race.c - two threads that do race: where the sanitizer does not say so, its silence elsewhere means nothing. */
#include <pthread.h>

static int shared;

static void *add(void *unused)
{
    (void)unused;
    for (int i = 0; i < 1000; i++) shared++;
    return NULL;
}

int main(void)
{
    pthread_t other;

    if (pthread_create(&other, NULL, add, NULL)) return 1;
    add(NULL);
    pthread_join(other, NULL);
    return shared == 0;
}
