-- Goes behind every script, which by then is the body of a function `run` over the KEYS and ARGV of one
-- run: has it run for each of those that share this call.
-- ARGV: for each run how many KEYS are its own, how many ARGV, and these
-- Returns what came of each. One that fails has its error for an answer, and is none of the others'
-- concern: what each has done stays done, as it would in calls of their own.
local answers, key, at, runs, count = {}, 1, 1, 0, #ARGV
while at < count do
  local next_key, next_at = key + ARGV[at], at + 2 + ARGV[at + 1]
  -- Tables that are made at once cost a fraction of such as grow.
  local done, answer =
    pcall(run, {unpack(KEYS, key, next_key - 1)}, {unpack(ARGV, at + 2, next_at - 1)})
  if not done and type(answer) ~= 'table' then
    -- Some servers make a string of a command's error, which begins with its code.
    answer = tostring(answer)
    answer = {err = string.find(answer, '^%u+ ') and answer or 'ERR ' .. answer}
  end
  runs, key, at = runs + 1, next_key, next_at
  answers[runs] = answer or false
end
return answers
