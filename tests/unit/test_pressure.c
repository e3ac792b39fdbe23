/* What the kernel says about want of memory. */
#include "tests/unit/cm.h"
#include "common/procfile.h"
#include "master/pressure.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void reads_the_share_in_which_nobody_could_run(void **state)
{
    static const struct {
        const char *text;
        double percent;
    } cases[] = {
        {"some avg10=12.34 avg60=5.00 avg300=1.00 total=99\nfull avg10=7.25 avg60=3.00 avg300=0.50 total=42", 7.25},
        {"full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", 0},
        {"full avg10=100.00 avg60=0.00", 100},
        {"full avg10=3", 3},
        {"", -1},
        {"some avg10=12.34 avg60=5.00 avg300=1.00 total=99\n", -1},
        {"full avg60=3.00", -1},
        {"full avg10=", -1},
        {"full avg10= avg60=1.00", -1},
        {"full avg10=x avg60=1.00", -1},
        {"full avg10=5x avg60=1.00", -1},
        {"full avg10=nan", -1},
        {"full avg10=-1.00", -1},
        {"full avg10=100.01", -1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (pressure_parse(str_of(cases[i].text)) != cases[i].percent)
            fail_msg("%s", cases[i].text);
}

static void files_are_read_whole_cut_or_not_at_all(void **state)
{
    char path[] = "/tmp/ragd-unit-XXXXXX", text[8];
    (void)state;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(procfile_read(path, text, sizeof text).n, 0);
    assert_int_equal(write(fd, "abc\n\n", 5), 5);
    assert_true(str_eqz(procfile_read(path, text, sizeof text), "abc"));
    assert_int_equal(write(fd, "defghij\n", 8), 8);
    assert_true(str_eqz(procfile_read(path, text, sizeof text), "abc\n\ndef"));
    close(fd);
    unlink(path);
    assert_int_equal(procfile_read(path, text, sizeof text).n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_the_share_in_which_nobody_could_run),
        cmocka_unit_test(files_are_read_whole_cut_or_not_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
