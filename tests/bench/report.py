"""The goals, and the tables that a run prints."""

from measure import median, ratio

WORK = {"a": "(a) health", "b": "(b) document by id", "c": "(c) page of 20", "d": "(d) create"}


def goals(runs, other):
    """(what, value or None, must the value be above or below, pass, stretch)."""

    def times(work, peer, key="rate"):
        mine, rows = runs.get((work, "ragd")), runs.get((work, peer))
        return ratio(mine, rows, key) if mine and rows else None

    def quotient(a, b):
        return other[a] / other[b] if a in other and b in other else None

    return [
        ("(a) ragd / nginx return 200", times("a", "nginx"), ">=", 0.90, 0.97),
        ("(a) CPU us, ragd / raw epoll", times("a", "epoll floor", "server"), "<=", 1.25, 1.05),
        ("(a) ragd / FastAPI", times("a", "fastapi"), ">=", 5, 7),
        ("(b) ragd / FastAPI", times("b", "fastapi"), ">=", 10, 18),
        ("(b) ragd / pgbench prepared", times("b", "pgbench"), ">=", 1.2, 2.0),
        ("(b) ragd / pgbench pipelined 16", times("b", "pgbench pipelined 16"), ">=", 0.30, 0.50),
        ("(b) p99, ragd / FastAPI", times("b", "fastapi", "p99"), "<=", 0.25, 0.08),
        ("(c) ragd / FastAPI", times("c", "fastapi"), ">=", 10, 15),
        ("(c) ragd / pgbench, same query", times("c", "pgbench"), ">=", 0.9, 1.2),
        ("(d) ragd / FastAPI, one row each", times("d", "fastapi"), ">=", 5, 9),
        ("(d) ragd / pgbench, one row", times("d", "pgbench"), ">=", 1.0, 1.7),
        ("(d) ragd / pgbench, same three rows", times("d", "pgbench three rows"), ">=", None, None),
        ("PSS, ragd / FastAPI", quotient("ragd PSS, MB", "fastapi PSS, MB"), "<=", 0.25, 0.15),
        ("private bytes per idle connection", other.get("ragd bytes per idle connection"), "<=", 1024, 256),
        ("busier worker's share of connections", other.get("busier worker's share"), "<=", 0.65, 0.55),
        ("(b) with 2 slow queries / without", other.get("lookups beside slow queries"), ">=", 0.85, 0.97),
        ("/health p99 beside 2,000 idle, 2,000 slow, ms",
         other.get("/health p99 beside 4,000 idle and slow connections, ms"), "<=", 50, 50),
        ("PSS with them, MB", other.get("PSS with 4,000 idle and slow connections, MB"), "<=", 100, 100),
        ("start to first answer, ms", other.get("start to first answer, ms"), "<=", 200, 200),
        ("PSS after 10,000 requests, MB", other.get("PSS after 10,000 requests, MB"), "<=", 40, 40),
    ]


def reaches(value, sign, bound):
    return value >= bound if sign == ">=" else value <= bound


def cell(value, form):
    return "-" if value is None else format(value, form)


def report(args, runs, other):
    """Prints everything; returns how many goals were missed."""
    print(f"\nmedians of {args.rounds} interleaved rounds of {args.seconds} s, {args.connections} connections, "
          f"{args.workers} workers a server, {args.documents} documents\n")
    print("| work | server | requests/s | ragd / it | p50 ms | p99 ms | CPU us | PostgreSQL us | errors |")
    print("|---|---|---|---|---|---|---|---|---|")
    for (work, name), rows in runs.items():
        print(f"| {WORK[work]} | {name} | {median(rows, 'rate'):,.0f} | {ratio(runs[(work, 'ragd')], rows):.2f} | "
              f"{cell(median(rows, 'p50'), '.2f')} | {cell(median(rows, 'p99'), '.2f')} | "
              f"{cell(median(rows, 'server'), '.1f')} | {cell(median(rows, 'postgres'), '.1f')} | "
              f"{sum(row['errors'] for row in rows)} |")
    print("\n| figure | value |\n|---|---|")
    for name, value in other.items():
        print(f"| {name} | {value:,.2f} |")
    print("\n| goal | value | pass | stretch | |\n|---|---|---|---|---|")
    missed = 0
    for what, value, sign, enough, stretch in goals(runs, other):
        verdict = ""
        if value is not None and enough is not None:
            ok = reaches(value, sign, enough)
            missed += not ok
            verdict = "FAIL" if not ok else "PASS, stretch" if reaches(value, sign, stretch) else "PASS"
        print(f"| {what} | {cell(value, '.2f')} | {sign} {enough if enough is not None else '-'} | "
              f"{stretch if stretch is not None else '-'} | {verdict} |")
    void = sum(row["errors"] for rows in runs.values() for row in rows)
    if void:
        print(f"\n{void} requests failed: the rows with errors are void")
    return missed + bool(void)
