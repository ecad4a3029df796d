-- Exchanges what clients have: one key for each, a hash with a field for each host ("sessions expiry") and the
-- field "full", when the rate of all hosts together is full again. Times are microseconds of the clock of Redis.
-- ARGV: host, time until its sessions do not count (ms); then for each key: its sessions, and the time that handshakes
-- have taken of the rate.
-- Answers for each key { sessions of other hosts, time until the rate is full }, or a text: why there is none.
local FIELDS_MAX, SESSIONS_MAX, TIME_MAX = 1024, 16777215, 1e15

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local host, host_timeout = ARGV[1], tonumber(ARGV[2])

local function whole(number)
    return string.format('%.0f', number)
end

local function exchange(key, sessions, owed)
    local size = redis.pcall('HLEN', key)
    if type(size) == 'table' then
        return 'no hash'
    elseif size > FIELDS_MAX then
        return 'too many fields'
    end
    local fields, others, full, told, has_full = redis.call('HGETALL', key), 0, now, false, false
    for n = 1, #fields, 2 do
        local name, value = fields[n], fields[n + 1]
        if name == 'full' then
            has_full, full = true, #value <= 20 and string.match(value, '^%d+$') and tonumber(value)
            if not full or full > now + TIME_MAX then
                return 'no time'
            end
        elseif name == host then
            told = true
        else
            local count, expiry = string.match(value, '^(%d+) (%d+)$')
            if not count or #count > 8 or #expiry > 20 then
                return 'no count'
            elseif tonumber(expiry) > now then
                others = others + tonumber(count)
            else
                redis.call('HDEL', key, name)
            end
        end
    end
    if others > SESSIONS_MAX then
        return 'no count'
    end
    full = math.max(full, now) + owed
    if sessions > 0 then
        redis.call('HSET', key, host, whole(sessions) .. ' ' .. whole(now + host_timeout * 1000))
    elseif told then
        redis.call('HDEL', key, host)
    end
    if full > now then
        redis.call('HSET', key, 'full', whole(full))
    elseif has_full then
        redis.call('HDEL', key, 'full')
    end
    redis.call('PEXPIRE', key, whole(math.max(host_timeout, (full - now) / 1000 + 1)))
    return { others, full - now }
end

local answers = {}
for n, key in ipairs(KEYS) do
    answers[n] = exchange(key, tonumber(ARGV[2 * n + 1]), tonumber(ARGV[2 * n + 2]))
end
return answers
