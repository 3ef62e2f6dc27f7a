/*
 * What libpq makes of connection strings, for tests/libpq.rs to compare with.
 *
 * Reads requests from standard input and writes an answer to each to standard output, until the
 * input ends. A text is its length, four bytes, little-endian, and its bytes. A list is the number
 * of its elements, four bytes, and the elements.
 *
 * First of all it writes the version of the library, four bytes, and the list of its parameters:
 * name, variable, compiled-in default, each a text, empty for none.
 *
 *   p TEXT        parses a string      -> o and a list of names and values, or e and the error
 *   c LIST TEXT   sets the environment to the list of names and values, and nothing else, and
 *                 starts to connect    -> the error, the password, the host, and a list of names
 *                 and values
 *
 * The declarations are libpq's (manual: libpq-connect), here so that no header is needed.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char *keyword;
    char *envvar;
    char *compiled;
    char *val;
    char *label;
    char *dispchar;
    int dispsize;
} PQconninfoOption;
typedef struct pg_conn PGconn;

extern int PQlibVersion(void);
extern PQconninfoOption *PQconninfoParse(const char *conninfo, char **errmsg);
extern PQconninfoOption *PQconninfo(PGconn *conn);
extern void PQconninfoFree(PQconninfoOption *options);
extern void PQfreemem(void *memory);
extern PGconn *PQconnectStart(const char *conninfo);
extern char *PQerrorMessage(const PGconn *conn);
extern char *PQpass(const PGconn *conn);
extern char *PQhost(const PGconn *conn);
extern void PQfinish(PGconn *conn);

enum { TEXT_MAX = 1 << 20 };

static void fail(const char *what) {
    fprintf(stderr, "conninfo: %s\n", what);
    exit(1);
}

static void put_number(unsigned number) {
    for (int shift = 0; shift < 32; shift += 8)
        putchar((int)(number >> shift & 255));
}

static void put_text(const char *text) {
    size_t length = text ? strlen(text) : 0;
    put_number((unsigned)length);
    if (length > 0)
        fwrite(text, 1, length, stdout);
}

static void put_values(PQconninfoOption *options) {
    unsigned count = 0;
    for (PQconninfoOption *option = options; option && option->keyword; option++)
        count += option->val != NULL;
    put_number(count);
    for (PQconninfoOption *option = options; option && option->keyword; option++) {
        if (option->val) {
            put_text(option->keyword);
            put_text(option->val);
        }
    }
}

static unsigned get_number(void) {
    unsigned number = 0;
    for (int shift = 0; shift < 32; shift += 8) {
        int byte = getchar();
        if (byte == EOF)
            fail("the input ends within a number");
        number |= (unsigned)byte << shift;
    }
    return number;
}

static char *get_text(void) {
    unsigned length = get_number();
    if (length > TEXT_MAX)
        fail("a text is too long");
    char *text = malloc(length + 1);
    if (!text || fread(text, 1, length, stdin) != length)
        fail("the input ends within a text");
    text[length] = '\0';
    return text;
}

static void put_parameters(void) {
    PQconninfoOption *options = PQconninfoParse("", NULL);
    unsigned count = 0;
    if (!options)
        fail("libpq does not take the empty string");
    for (PQconninfoOption *option = options; option->keyword; option++)
        count++;
    put_number((unsigned)PQlibVersion());
    put_number(count);
    for (PQconninfoOption *option = options; option->keyword; option++) {
        put_text(option->keyword);
        put_text(option->envvar);
        put_text(option->compiled);
    }
    PQconninfoFree(options);
}

static void parse(void) {
    char *text = get_text();
    char *error = NULL;
    PQconninfoOption *options = PQconninfoParse(text, &error);
    putchar(options ? 'o' : 'e');
    if (options)
        put_values(options);
    else
        put_text(error);
    PQfreemem(error);
    PQconninfoFree(options);
    free(text);
}

static void connect_start(void) {
    clearenv();
    for (unsigned count = get_number(); count > 0; count--) {
        char *name = get_text(), *value = get_text();
        if (setenv(name, value, 1) != 0)
            fail("a variable cannot be set");
        free(name);
        free(value);
    }
    char *text = get_text();
    PGconn *conn = PQconnectStart(text);
    if (!conn)
        fail("no memory for a connection");
    PQconninfoOption *options = PQconninfo(conn);
    put_text(PQerrorMessage(conn));
    put_text(PQpass(conn));
    put_text(PQhost(conn));
    put_values(options);
    PQconninfoFree(options);
    PQfinish(conn);
    free(text);
}

int main(void) {
    put_parameters();
    for (int request = getchar(); request != EOF; request = getchar()) {
        if (request == 'p')
            parse();
        else if (request == 'c')
            connect_start();
        else
            fail("an unknown request");
    }
    return fflush(stdout) == 0 ? 0 : 1;
}
