-- GET the targets listed in BENCH_TARGETS, one a line, in turn. They are formatted once, so that the generator costs the
-- same for every server.
local requests, n, i = {}, 0, 0

function init(args)
  for target in io.lines(os.getenv("BENCH_TARGETS")) do
    n = n + 1
    requests[n] = wrk.format("GET", target)
  end
end

function request()
  i = i % n + 1
  return requests[i]
end
