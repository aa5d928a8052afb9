-- SPDX-License-Identifier: MIT
-- The teaching device, which is an example.

return require "examples.edu.edu"
