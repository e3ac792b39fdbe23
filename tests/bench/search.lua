-- POST the bodies listed in BENCH_BODIES, one a line, to BENCH_TARGET, in turn. They are formatted once.
local requests, n, i = {}, 0, 0

function init(args)
  for body in io.lines(os.getenv("BENCH_BODIES")) do
    n = n + 1
    requests[n] = wrk.format("POST", os.getenv("BENCH_TARGET"),
      {["Host"] = wrk.headers["Host"], ["Content-Type"] = "application/json"}, body)
  end
end

function request()
  i = i % n + 1
  return requests[i]
end
