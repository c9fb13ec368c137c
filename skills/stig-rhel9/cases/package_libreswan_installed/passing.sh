#!/bin/bash
rpm -q --quiet libreswan || dnf -y -q install libreswan
