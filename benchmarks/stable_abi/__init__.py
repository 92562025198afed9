"""One operator by torch's stable ABI: does one binary serve several versions of torch, and what does a call cost?"""
