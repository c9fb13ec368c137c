"""What a skill is written against: five interfaces, the manifest, access to targets, policy, and conformance tests.

Owns the shape of a skill and the safe ways to touch a target. Does not own any one skill's knowledge, nor when things
run.
"""
