/* The numbered migrations of each product, built into the binary from worker/store/migrations/PRODUCT/NNNN_name.sql. */
#pragma once

struct migration {
    const char *product; /* "sqlite", "postgres" */
    int number;          /* 1, 2, … without gaps */
    const char *name;    /* "0001_init" */
    const char *sql;
};
extern const struct migration migrations[]; /* in order of product and number; ends with a zeroed entry */
