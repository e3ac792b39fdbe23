-- POST documents of about 2 KB to BENCH_TARGET, each with a text that no other has: the file BENCH_BODY holds one body in
-- which "0000000000" stands where a number goes, counted up from BENCH_FIRST.
local head, tail, n

function init(args)
  local file = io.open(os.getenv("BENCH_BODY"))
  local body = file:read("*a")
  file:close()
  local whole = wrk.format("POST", os.getenv("BENCH_TARGET"),
    {["Host"] = wrk.headers["Host"], ["Content-Type"] = "application/json"}, body)
  local from, to = whole:find("0000000000", 1, true)
  head, tail = whole:sub(1, from - 1), whole:sub(to + 1)
  n = tonumber(os.getenv("BENCH_FIRST"))
end

function request()
  n = n + 1
  return head .. string.format("%010d", n) .. tail
end
