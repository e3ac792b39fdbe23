/* The readers of configuration. The input is a YAML file, then behind a NUL a .env file, then behind further NULs
 * assignments as of --set. What loads must print as a configuration that loads again with the same values. */
#include "config/config_impl.h"
#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct config *blank(void)
{
    struct config *cfg;
    struct err e;
    if (config_load(&(struct config_args){0}, &cfg, &e))
        abort();
    return cfg;
}

static int load(struct config *cfg, struct str input, struct err *e)
{
    static const struct config_source at = {.layer = LAYER_SET, .name = "--set"};
    struct str file = str_cut(&input, '\0'), dotenv = str_cut(&input, '\0');
    if (config_yaml(cfg, "fuzz.yaml", file, e) || config_env(cfg, NULL, ".env", dotenv, e))
        return -1;
    while (input.n) {
        struct str value = str_cut(&input, '\0'), name = str_cut(&value, '=');
        int key = config_find(name);
        if (key < 0) {
            config_nearest(name);
            return err_set(e, ERR_VALIDATION, "unknown key");
        }
        if (config_set_text(cfg, (enum config_key)key, value, &at, e))
            return -1;
    }
    return config_check_all(cfg, e);
}

static void read_back(const struct config *cfg, void (*print)(const struct config *, struct buf *))
{
    struct config *again = blank();
    struct buf b = {0};
    struct err e;
    print(cfg, &b);
    if (config_yaml(again, "dump.yaml", buf_view(&b), &e) || config_check_all(again, &e))
        abort();
    for (int k = 0; k < KEY_COUNT; k++)
        assert(config_keys[k].type == CONFIG_SECRET || config_same(cfg, again, (enum config_key)k));
    buf_fini(&b);
    config_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *cfg = blank();
    struct buf warnings = {0};
    struct err e;
    /* Through a copy, so that a read beyond the end is seen. */
    char *copy = malloc(size ? size : 1);
    assert(copy);
    if (size)
        memcpy(copy, data, size);
    if (load(cfg, (struct str){copy, size}, &e) == 0) {
        read_back(cfg, config_dump);
        read_back(cfg, config_dump_json);
        config_warnings(cfg, &warnings);
    } else {
        assert(*e.msg);
    }
    buf_fini(&warnings);
    free(copy);
    config_free(cfg);
    return 0;
}
