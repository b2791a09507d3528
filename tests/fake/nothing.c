/* nothing.c - a shared object that is no plugin: it exports something else than the entry. */
__attribute__((visibility("default"))) int rd_fake_nothing(void);

int rd_fake_nothing(void)
{
    return 0;
}
