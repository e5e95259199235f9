-- Request the arguments after wrk's own in turn, and end with a line of JSON.
--
-- An argument is a path, or "POST" and a path: then a form with a new name is sent to it. Or it is
-- "IF", an ETag and a path: then the response need only say whether the file has changed.

local requests = {}
local turn = 0
local form = {["Content-Type"] = "application/x-www-form-urlencoded"}
local names = 0

local function post(path)
    return function()
        names = names + 1
        return wrk.format("POST", path, form, string.format("name=Visitor+%d", names))
    end
end

local function revalidate(etag, path)
    local headers = {["If-None-Match"] = etag}
    for name, value in pairs(wrk.headers) do
        headers[name] = value
    end
    return wrk.format("GET", path, headers)
end

function init(arguments)
    for number, argument in ipairs(arguments) do
        local path = argument:match("^POST (.+)")
        local etag, file = argument:match("^IF (%S+) (.+)")
        requests[number] = path and post(path) or file and revalidate(etag, file)
            or wrk.format("GET", argument)
    end
end

function request()
    turn = turn % #requests + 1
    local found = requests[turn]
    return type(found) == "function" and found() or found
end

function done(summary, latency)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format(
        '{"requests": %d, "failed": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f}\n',
        summary.requests, failed, summary.duration / 1e6,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3
    ))
end
