-- Goes behind every script, which by then is the body of a function `run` over the KEYS and ARGV of one
-- run: has it run for each of those that share this call, which have as many of each.
-- KEYS: those of each run
-- ARGV: how many runs, how many ARGV each has of its own, those of each run, and what all of them have
--       behind their own
-- Returns what came of each, or of the only one. One that fails has its error for an answer, and is none
-- of the others' concern: what each has done stays done, as it would in calls of their own.
local runs, own = ARGV[1] + 0, ARGV[2] + 0
local each, answers = #KEYS / runs, {}
-- Tables that are made at once cost a fraction of such as grow: those of the last run stand together.
local keys, args = {unpack(KEYS, 1, each)}, {unpack(ARGV, 3 + (runs - 1) * own)}
for number = 1, runs do
  if runs > 1 then
    local key, at = (number - 1) * each, 2 + (number - 1) * own
    for i = 1, each do
      keys[i] = KEYS[key + i]
    end
    for i = 1, own do
      args[i] = ARGV[at + i]
    end
  end
  local done, answer = pcall(run, keys, args)
  if not done and type(answer) ~= 'table' then
    -- Some servers make a string of a command's error, which begins with its code.
    answer = tostring(answer)
    answer = {err = string.find(answer, '^%u+ ') and answer or 'ERR ' .. answer}
  end
  answers[number] = answer or false
end
return runs > 1 and answers or answers[1]
