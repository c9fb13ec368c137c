#!/bin/bash
rpm -q --quiet tmux || dnf -y -q install tmux
