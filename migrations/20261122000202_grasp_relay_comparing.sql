-- Since when the relay's coverage is being compared with what is wanted; null if it is not, or if the relay was
-- marked to be compared meanwhile.
alter table grasp_relay add column comparing_since timestamptz;
