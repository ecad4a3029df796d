-- Requests that differ, and whether each has its own response: every path is asked for once, and its response
-- names it.
local threads = {}

function setup(thread)
  thread:set("id", #threads)
  table.insert(threads, thread)
end

function init(args)
  asked, got, wrong, first_wrong = 0, 0, 0, ""
  waiting = {}
end

function request()
  asked = asked + 1
  local path = "/" .. id .. "/" .. asked
  waiting[path] = true
  if asked % 10 == 0 then
    return wrk.format("POST", path, { ["Content-Length"] = "100" }, string.rep("x", 100))
  end
  return wrk.format("GET", path)
end

function response(status, headers, body)
  local path = body:match("^(%S+)")
  got = got + 1
  if status == 200 and path and waiting[path] and #body == tonumber(headers["Content-Length"]) then
    waiting[path] = nil
  else
    wrong = wrong + 1
    first_wrong = status .. " " .. body:sub(1, 80)
  end
end

function done(summary, latency, requests)
  local total, bad, said = 0, 0, ""
  for _, thread in ipairs(threads) do
    total, bad = total + thread:get("got"), bad + thread:get("wrong")
    if thread:get("first_wrong") ~= "" then said = thread:get("first_wrong") end
  end
  local errors = summary.errors
  print(string.format("got %d wrong %d connect %d read %d write %d status %d timeout %d %s", total, bad,
    errors.connect, errors.read, errors.write, errors.status, errors.timeout, said))
end
