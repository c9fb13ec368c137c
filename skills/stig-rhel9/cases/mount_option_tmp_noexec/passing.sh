#!/bin/bash
mount -o remount,noexec,nosuid,nodev /tmp
