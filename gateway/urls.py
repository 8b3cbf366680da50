"""Addresses of the console: pages of the teams, admin, management API."""

from django.contrib import admin
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls)]
